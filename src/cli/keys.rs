//! The keys that may sign substitutes: from the ACL for Guix, from settings or nix.conf for Nix.
//!
//! A file that other users may change authorizes no key, unless it was named explicitly.

use std::io::ErrorKind;

use crate::format::store_path::Dialect;
use crate::substitute::chain;
use crate::trust::acl::{Acl, AuthorizedKeys};
use crate::trust::nix::TrustedKeys;
use crate::trust::policy::{PolicyFault, TrustPolicy};

use super::context::{Context, Purpose};
use super::error::CliError;
use super::file_trust::{self, FileSelection, UnsafeFile};
use super::nix_conf;
use super::output::shown_path;
use super::settings::StoreKind;

impl Context {
    /// The keys whose signatures are trusted.
    ///
    /// # Errors
    /// The ACL or a key is invalid, or cannot be read.
    pub(crate) fn keys(&self) -> Result<AuthorizedKeys, CliError> {
        if let Some(fault) = &self.settings.other_keys {
            return Err(CliError::Usage(fault.clone()));
        }
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
            let selection = self.settings.acl_selection;
            self.output
                .warn(&file_trust::warning("ACL", path, &fault, selection));
            if selection == FileSelection::Implicit {
                return Ok(Acl::default());
            }
        }

        if let Some(acl) = self.read_acl()? {
            for key in acl.unusable_keys() {
                let (name, path) = (key.short_name(), shown_path(path));
                self.output.warn(&format!(
                    "the key {name} in the ACL {path} is not used: {}",
                    key.why
                ));
            }
            return Ok(acl);
        }
        if self.settings.store_kind == StoreKind::Embedded && *path == self.settings.layout.acl() {
            return Ok(Acl::official_guix_servers());
        }

        let shown = shown_path(path);
        let advice = self.settings.advice().run_authorize();
        self.output.warn(&format!(
            "there is no ACL at {shown}, so no key is authorized; to create one, {advice}; {}",
            official_keys()
        ));
        Ok(Acl::default())
    }

    /// Who of the owners of `keys` has to agree about an item, and what is wrong with that.
    pub(crate) fn policy(&self, keys: &AuthorizedKeys) -> (TrustPolicy, Vec<PolicyFault>) {
        let now = self.clock.unix_seconds();
        TrustPolicy::new(self.settings.policy.clone(), keys, now)
    }

    /// No key, with a warning, for a command that goes on although the keys cannot be read.
    ///
    /// # Errors
    /// `error`, where the command cannot go on.
    pub(crate) fn no_keys(
        &self,
        error: CliError,
        purpose: Purpose,
    ) -> Result<AuthorizedKeys, CliError> {
        match (purpose, &error) {
            // A helper that does not start takes the whole build down with it.
            (Purpose::Helper, _) => {
                let text = format!("no key is trusted: {}", chain(&error));
                self.output.warn(&text);
            }
            (Purpose::Report, CliError::File { path, source, .. })
                if *path == self.settings.acl && source.kind() == ErrorKind::PermissionDenied =>
            {
                let (path, official) = (shown_path(path), official_keys());
                self.output.warn(&format!(
                    "this user may not read the ACL {path}, so no key is authorized; {official}"
                ));
            }
            _ => return Err(error),
        }
        Ok(AuthorizedKeys::Guix(Acl::default()))
    }

    /// The ACL file; `None` when there is none.
    ///
    /// # Errors
    /// It is invalid, or cannot be read.
    pub(crate) fn read_acl(&self) -> Result<Option<Acl>, CliError> {
        let path = &self.settings.acl;
        match std::fs::read(path) {
            Ok(text) => Acl::parse(&text).map(Some).map_err(|source| CliError::Acl {
                path: path.clone(),
                source,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CliError::file("read", path)(error)),
        }
    }

    /// Why the ACL is not safe: other users may change it.
    pub(crate) fn acl_fault(&self) -> Option<UnsafeFile> {
        // What cannot be looked at cannot be read either, and reading it says why.
        file_trust::check(&self.settings.acl, self.settings.root.as_deref())
            .ok()?
            .err()
    }

    fn nix_keys(&self) -> Result<TrustedKeys, CliError> {
        if let Some(list) = &self.settings.trusted_public_keys {
            return parse_keys(list, "trusted-public-keys".to_owned());
        }

        let found = nix_conf::read(&self.settings.nix_conf, self.settings.root.as_deref())?;
        for warning in &found.warnings {
            self.output.warn(warning);
        }
        let Some(keys) = found.keys else {
            return Ok(TrustedKeys::official_nix_server());
        };

        // Each list alone, so that an error names its place.
        for keys in &keys {
            parse_keys(&keys.list, format!("trusted-public-keys in {}", keys.place))?;
        }
        let lists: Vec<&str> = keys.iter().map(|keys| &*keys.list).collect();
        parse_keys(&lists.join(" "), "trusted-public-keys".to_owned())
    }
}

/// Which keys a store of the user's own begins with, for a user whose keys are none.
fn official_keys() -> String {
    let official = Acl::official_guix_servers();
    let keys = official.keys().map(|key| {
        let server = Acl::official_guix_server(key.id()).unwrap_or_default();
        format!("{} of {server}", key.short_name())
    });
    let keys = keys.collect::<Vec<_>>().join(" and ");
    format!("a store of your own, made by `subst fetch --root DIR`, authorizes {keys}")
}

/// The keys in `list`; `what` names it in an error.
fn parse_keys(list: &str, what: String) -> Result<TrustedKeys, CliError> {
    TrustedKeys::parse(list).map_err(|source| CliError::Key {
        what: format!("invalid key in {what}"),
        source: Box::new(source),
    })
}
