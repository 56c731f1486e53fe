;; The Guix package of subst, from the checkout that this file is in:
;;
;;   guix build -L packaging/guix subst
;;
;; The crates are those of Cargo.lock, with its checksums. Needs a Guix that has Rust 1.88 or later, such as Guix 1.5.

(define-module (subst packages)
  #:use-module (gnu packages rust)
  #:use-module (guix base16)
  #:use-module (guix build-system cargo)
  #:use-module (guix download)
  #:use-module (guix gexp)
  #:use-module ((guix licenses) #:prefix license:)
  #:use-module (guix packages)
  #:use-module (guix utils)
  #:use-module (ice-9 regex)
  #:use-module (ice-9 textual-ports)
  #:use-module (srfi srfi-1))

(define %checkout
  (canonicalize-path (string-append (current-source-directory) "/../../..")))

(define (read-file name)
  (call-with-input-file (string-append %checkout "/" name) get-string-all))

(define %locked-crate
  (make-regexp
   "name = \"([^\"]+)\"\nversion = \"([^\"]+)\"\nsource = \"registry[^\n]+\nchecksum = \"([0-9a-f]+)\""))

(define (locked-crates)
  "Return the archives of all crates that Cargo.lock names."
  (fold-matches %locked-crate (read-file "Cargo.lock") '()
                (lambda (found crates)
                  (cons (crate-archive (match:substring found 1)
                                       (match:substring found 2)
                                       (match:substring found 3))
                        crates))))

(define (crate-archive name version checksum)
  (origin
    (method url-fetch)
    (uri (crate-uri name version))
    (file-name (string-append (crate-name->package-name name) "-" version
                              ".tar.gz"))
    (hash (content-hash (base16-string->bytevector checksum) sha256))))

(define (source-file? file stat)
  "Whether FILE is part of the source, and not of a build or of Git."
  (not (member file (map (lambda (name) (string-append %checkout "/" name))
                         '(".git" "demo" "target")))))

(define %newest-rust
  (let ((module (resolve-interface '(gnu packages rust))))
    (any (lambda (minor)
           (let ((name (string->symbol (format #f "rust-1.~a" minor))))
             (and (module-variable module name)
                  (module-ref module name))))
         (reverse (iota 60 80)))))

(define-public subst
  (package
    (name "subst")
    (version (match:substring
              (string-match "\nversion = \"([^\"]+)\"" (read-file "Cargo.toml"))
              1))
    (source (local-file %checkout "subst-checkout"
                        #:recursive? #t
                        #:select? source-file?))
    (build-system cargo-build-system)
    (arguments
     (list #:rust %newest-rust
           #:install-source? #f
           ;; The integration tests start servers and namespaces, which need
           ;; more than a build environment has.
           #:cargo-test-flags ''("--lib")
           #:phases
           #~(modify-phases %standard-phases
               ;; What is tested is the SQLite and zstd that the crates
               ;; bundle; the SQLite of Guix may be years old.
               (add-after 'configure 'use-bundled-libraries
                 (lambda _
                   (unsetenv "LIBSQLITE3_SYS_USE_PKG_CONFIG")
                   (unsetenv "ZSTD_SYS_USE_PKG_CONFIG")
                   ;; cargo reads only one of these files; that of subst has
                   ;; the flags of SQLite.
                   (invoke "sh" "-c"
                           "(echo; cat .cargo/config.toml) >> .cargo/config")))
               ;; rusqlite, and subst because of it, declare Rust 1.89, but
               ;; build with the 1.88 of Guix 1.5.
               (add-after 'configure 'accept-older-rust
                 (lambda _
                   (substitute* (find-files "." "^Cargo\\.toml$")
                     (("^rust-version = .*") ""))))
               (add-after 'install 'install-helper
                 (lambda _
                   (let ((helper (string-append #$output "/lib/subst")))
                     (install-file "packaging/guix-daemon/guix" helper)
                     (chmod (string-append helper "/guix") #o755))))
               (add-after 'install 'install-completions-and-manual
                 (lambda _
                   (let ((program (string-append #$output "/bin/subst"))
                         (share (string-append #$output "/share/")))
                     (define (install-completions shell file)
                       (mkdir-p (dirname (string-append share file)))
                       (with-output-to-file (string-append share file)
                         (lambda ()
                           (invoke program "completions" shell))))
                     (unless #$(%current-target-system)
                       (install-completions
                        "bash" "bash-completion/completions/subst")
                       (install-completions
                        "zsh" "zsh/site-functions/_subst")
                       (install-completions
                        "fish" "fish/vendor_completions.d/subst.fish")
                       (invoke program "man" "manual")
                       (for-each
                        (lambda (page)
                          (install-file
                           page
                           (string-append share "man/man"
                                          (string-take-right page 1))))
                        (find-files "manual")))))))))
    (inputs (locked-crates))
    ;; The repository has no public address yet.
    (home-page "https://guix.gnu.org/manual/en/html_node/Substitutes.html")
    (synopsis "Fetch substitutes for Guix and Nix from many servers")
    (description
     "subst looks up substitutes on any number of servers in parallel, verifies
their signatures and hashes, and writes them into a store while they are
downloaded.  It works without a daemon, also for a store of an ordinary user,
and as the substituter of @command{guix-daemon}.")
    (license (list license:expat license:asl2.0))))
