;; Put trees into the Guix store that the speed benchmarks publish.
;; guix repl speed-add.scm TREES LIST: every directory of TREES as an item of its name, `big` ten times more as ten-0 ... ten-9.
;; Writes lines `NAME PATH` to LIST.
(use-modules (guix store) (ice-9 ftw) (ice-9 match) (srfi srfi-1))

(match (command-line)
  ((_ ... trees list-file)
   (with-store store
     (call-with-output-file list-file
       (lambda (port)
         (define (add name tree)
           (let ((path (add-to-store store name #t "sha256" (string-append trees "/" tree))))
             (format port "~a ~a~%" name path)))
         (let ((names (scandir trees (lambda (name) (not (string-prefix? "." name))))))
           (for-each add names names)
           (for-each (lambda (number) (add (string-append "ten-" (number->string number)) "big"))
                     (iota 10))))))))
