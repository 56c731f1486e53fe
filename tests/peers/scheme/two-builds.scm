;; Build items that differ from store to store although their names are the same.
;; guix repl two-builds.scm LIST: writes the output paths of `same` and `other` to LIST, one per line.
(use-modules (guix store) (guix derivations) (srfi srfi-1))

(with-store store
  (set-build-options store #:use-substitutes? #f #:offload? #f #:print-build-trace #f)
  (let* ((shell (add-to-store store "dash" #t "sha256" "/usr/bin/dash"))
         (script (add-to-store store "build-twice" #f "sha256" "/subst-peers/inside/build-twice"))
         (build (lambda (name arguments inputs)
                  (derivation store name shell (cons script arguments)
                              #:system "x86_64-linux"
                              #:inputs (map derivation-input inputs)
                              #:sources (list shell script)
                              #:env-vars '())))
         (first (build "twice-first" '("leaf" "first") '()))
         (second (build "twice-second" '("leaf" "second") '()))
         (leaves (list first second))
         (outputs (map derivation->output-path leaves))
         (items (list (build "twice-same" (cons "same" outputs) leaves)
                      (build "twice-other" (cons "other" outputs) leaves))))
    (build-derivations store items)
    (call-with-output-file (last (command-line))
      (lambda (port)
        (for-each (lambda (item) (display (derivation->output-path item) port) (newline port)) items)))))
