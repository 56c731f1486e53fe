;; The Guix System service of subst: the program for all users, its settings, and guix-daemon with subst as its substituter.
;;
;;   (use-modules (subst services))
;;   (operating-system
;;     ...
;;     (services
;;       (cons (service subst-service-type)
;;             (modify-services %desktop-services
;;               (guix-service-type config => (guix-configuration-with-subst config))))))

(define-module (subst services)
  #:use-module (gnu services)
  #:use-module (gnu services base)
  #:use-module (guix gexp)
  #:use-module (guix records)
  #:use-module (subst packages)
  #:export (subst-configuration
            subst-configuration?
            subst-configuration-package
            subst-configuration-settings
            subst-service-type
            guix-configuration-with-subst))

(define-record-type* <subst-configuration>
  subst-configuration make-subst-configuration
  subst-configuration?
  (package subst-configuration-package        ;file-like
           (default subst))
  (settings subst-configuration-settings      ;file-like | #f
            (default #f)))

(define (subst-packages config)
  (list (subst-configuration-package config)))

(define (subst-etc-files config)
  (let ((settings (subst-configuration-settings config)))
    (if settings
        `(("subst" ,(file-union "subst-settings"
                                `(("config.toml" ,settings)))))
        '())))

(define subst-service-type
  (service-type
   (name 'subst)
   (extensions
    (list (service-extension profile-service-type subst-packages)
          (service-extension etc-service-type subst-etc-files)))
   (default-value (subst-configuration))
   (description "Install @command{subst}, a program that fetches substitutes,
with its settings: a file-like object that becomes
@file{/etc/subst/config.toml}.")))

;; The name does not change with the package, so that the daemon does not have
;; to be restarted when the package is upgraded.
(define %helper "/run/current-system/profile/lib/subst/guix")

(define (guix-configuration-with-subst config)
  "Return CONFIG, a <guix-configuration>, with subst as the substituter of
guix-daemon.  It needs a service of type SUBST-SERVICE-TYPE."
  (guix-configuration
   (inherit config)
   (environment (cons (string-append "GUIX=" %helper)
                      (guix-configuration-environment config)))))
