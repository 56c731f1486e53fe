;; What the service of packaging/guix adds to a system: the environment of guix-daemon, /etc, and the profile.
(use-modules (gnu services)
             (gnu services base)
             (guix gexp)
             (guix packages)
             (srfi srfi-1)
             (subst services))

(define settings
  (plain-file "config.toml" "jobs = 8\n"))

(define services
  (list (service system-service-type '())
        (service boot-service-type '())
        (service activation-service-type '())
        (service etc-service-type '())
        (service profile-service-type '())
        (service subst-service-type
                 (subst-configuration (settings settings)))))

(define (value type)
  (service-value (fold-services services #:target-type type)))

(define daemon
  (guix-configuration-with-subst (guix-configuration)))

(for-each (lambda (line) (format #t "environment ~a~%" line))
          (guix-configuration-environment daemon))
(for-each (lambda (entry) (format #t "etc ~a~%" (first entry)))
          (value etc-service-type))
(for-each (lambda (package) (format #t "profile ~a~%" (package-name package)))
          (value profile-service-type))
