;; Build the test closure in a Guix store without building packages: raw derivations whose builder is dash.
;; guix repl closure.scm PLAN LIST: builds what the plan says and writes every output path to LIST.
(use-modules (guix store) (guix derivations) (srfi srfi-1) (ice-9 match) (ice-9 vlist))

(define (item-builder store shell script)
  "A procedure that makes the derivation of one item, given its name, arguments, inputs and plain files."
  (lambda (name arguments inputs files)
    (derivation store name shell
                (append (list script) arguments
                        (map derivation->output-path inputs) files)
                #:system "x86_64-linux"
                #:inputs (map derivation-input inputs)
                #:sources (cons* shell script files)
                #:env-vars '())))

(match (command-line)
  ((_ ... plan-file list-file)
   (with-store store
     (set-build-options store #:use-substitutes? #f #:offload? #f
                        #:max-build-jobs 4 #:build-cores 1 #:print-build-trace #f)
     (let* ((shell (add-to-store store "dash" #t "sha256" "/usr/bin/dash"))
            (package (item-builder store shell
                                   (add-to-store store "build-item" #f "sha256"
                                                 "/subst-peers/inside/build-item")))
            (special (item-builder store shell
                                   (add-to-store store "build-special" #f "sha256"
                                                 "/subst-peers/inside/build-special")))
            (plain '())
            (table
             (fold (lambda (entry table)
                     (match entry
                       ((key name references itself? file)
                        (let ((files (if file
                                         (list (add-to-store store (string-append "copyright-" key)
                                                             #t "sha256" file))
                                         '())))
                          (set! plain (append files plain))
                          (vhash-cons key
                                      (package name (list key (if itself? "yes" "no"))
                                               (map (lambda (key) (cdr (vhash-assoc key table)))
                                                    references)
                                               files)
                                      table)))))
                   vlist-null
                   (call-with-input-file plan-file read)))
            (libc (cdr (vhash-assoc "libc6" table)))
            (file (special "subst-file" '("file") (list libc) '()))
            (twins (special "subst-twins" '("twins") (list file) '()))
            (specials (list file twins
                            (special "subst-link" '("link") (list file) '())
                            (special "subst-program" '("program") (list file) '())
                            (special "subst-empty" '("empty") '() '())
                            (special "subst-deep" '("deep") (list twins) '())
                            (special "subst-names" '("names") (list twins file) '())))
            (all (append (vhash-fold (lambda (key drv result) (cons drv result)) '() table)
                         specials)))
       (build-derivations store all)
       (call-with-output-file list-file
         (lambda (port)
           (for-each (lambda (path) (display path port) (newline port))
                     (sort (append plain (map derivation->output-path all))
                           string<?))))))))
