//! The keys that may sign substitutes: from the ACL for Guix, from settings or nix.conf for Nix.
//!
//! A file that other users may change authorizes no key, unless it was named explicitly.

use crate::format::store_path::Dialect;
use crate::trust::acl::{Acl, AuthorizedKeys};
use crate::trust::nix::TrustedKeys;

use super::context::Context;
use super::error::CliError;
use super::file_trust::{self, Choice, Unsafe};
use super::nix_conf;
use super::output::shown_path;
use super::settings::StoreKind;

impl Context {
    /// The keys whose signatures are trusted.
    ///
    /// # Errors
    /// The ACL or a key is invalid, or cannot be read.
    pub(crate) fn keys(&self) -> Result<AuthorizedKeys, CliError> {
        if self.settings.allow_unauthenticated {
            self.output
                .warn("signatures are not verified: GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES is set");
            return Ok(AuthorizedKeys::AllowUnauthenticated);
        }

        match self.settings.store_dir().dialect() {
            Dialect::Guix => self.guix_keys().map(AuthorizedKeys::Guix),
            Dialect::Nix => self.nix_keys().map(AuthorizedKeys::Nix),
        }
    }

    fn guix_keys(&self) -> Result<Acl, CliError> {
        let path = &self.settings.acl;
        if let Some(fault) = self.acl_fault() {
            let choice = self.settings.acl_choice;
            self.output
                .warn(&file_trust::warning("ACL", path, &fault, choice));
            if choice == Choice::Implicit {
                return Ok(Acl::default());
            }
        }

        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.settings.store_kind == StoreKind::Embedded
                    && *path == self.settings.layout.acl()
                {
                    return Ok(Acl::official_guix_servers());
                }
                let (path, command) = (
                    shown_path(path),
                    self.settings.advice().authorize("KEYFILE"),
                );
                self.output.warn(&format!(
                    "there is no ACL at {path}, so no key is authorized; `{command}` creates one"
                ));
                return Ok(Acl::default());
            }
            Err(source) => {
                return Err(CliError::File {
                    action: "reading",
                    path: path.clone(),
                    source,
                });
            }
        };

        Acl::parse(&text).map_err(|source| CliError::Acl {
            path: path.clone(),
            source,
        })
    }

    /// Why the ACL is not safe: other users may change it.
    pub(crate) fn acl_fault(&self) -> Option<Unsafe> {
        // What cannot be looked at cannot be read either, and reading it says why.
        file_trust::check(&self.settings.acl, self.settings.root.as_deref())
            .ok()?
            .err()
    }

    fn nix_keys(&self) -> Result<TrustedKeys, CliError> {
        let conf = self.settings.nix_conf();
        let (what, list) = match &self.settings.trusted_public_keys {
            Some(list) => ("trusted-public-keys".to_owned(), list.clone()),
            None => {
                let found = nix_conf::read(&conf, self.settings.root.as_deref())?;
                for warning in &found.warnings {
                    self.output.warn(warning);
                }
                match found.keys {
                    Some(list) => (format!("trusted-public-keys in {}", conf.display()), list),
                    None => return Ok(TrustedKeys::official_nix_server()),
                }
            }
        };

        TrustedKeys::parse(&list).map_err(|source| CliError::Key {
            what,
            source: Box::new(source),
        })
    }
}
