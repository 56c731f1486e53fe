//! How keys become trusted, or no longer are: commands and settings.

use crate::format::store_path::Dialect;
use crate::trust::acl::Acl;

use super::advice::{Advice, Invocation};
use super::output::shown_path;
use super::shell_command::{add, add_path, quoted};

impl Advice {
    /// The command that makes the key in `file` an authorized one, where this run looks for it.
    #[must_use]
    pub(crate) fn authorize(&self, file: &str) -> String {
        let Invocation {
            root,
            store_dir,
            acl,
            config,
            ..
        } = &self.invocation;

        let mut command = "subst authorize".to_owned();
        add_path(&mut command, "--root", root.as_deref());
        add(&mut command, "--store-dir", store_dir.as_deref());
        add_path(&mut command, "--acl", acl.as_deref());
        add_path(&mut command, "--config", config.as_deref());
        format!("{command} {file}")
    }

    /// The command that is about the key in `file` for the store in `store_dir`, or in the default one.
    #[must_use]
    pub(crate) fn authorize_for(&self, store_dir: Option<&str>, file: &str) -> String {
        let mut other = self.clone();
        other.invocation.store_dir = store_dir.map(str::to_owned);
        other.invocation.acl = None;
        other.authorize(file)
    }

    /// `authorize` in a sentence: who has to run it.
    #[must_use]
    pub(crate) fn run_authorize(&self) -> String {
        let command = self.authorize("KEYFILE");
        match (&self.invocation.root, &self.invocation.acl) {
            (None, None) => format!("run `{command}` as root"),
            _ => format!("run `{command}`"),
        }
    }

    /// How the owner of a key becomes trusted.
    #[must_use]
    pub(crate) fn trust_key(&self) -> String {
        match self.dialect {
            Dialect::Guix => self.run_authorize(),
            Dialect::Nix => match self.nix_keys_setting() {
                Some(setting) => format!("add NAME:KEY to {setting}"),
                None => {
                    let conf = self.nix_conf.display();
                    format!(
                        "add a line `extra-trusted-public-keys = NAME:KEY` to {conf}, or name all keys \
                         to trust with --trusted-public-keys"
                    )
                }
            },
        }
    }

    /// How `key`, NAME:KEY of Nix, becomes trusted: the command.
    #[must_use]
    pub(crate) fn trust_nix_key(&self, key: &str) -> String {
        if let Some(setting) = self.nix_keys_setting() {
            return format!("add {key} to {setting}");
        }

        let line = quoted(&format!("extra-trusted-public-keys = {key}"));
        let conf = quoted(&shown_path(&self.nix_conf));
        let directory = self.nix_conf.parent().unwrap_or(&self.nix_conf);
        let directory = quoted(&shown_path(directory));
        // The last line of the file may have no end.
        let print = format!("printf '\\n%s\\n' {line}");
        match &self.invocation.root {
            // By default, only root can write to files that are made with sudo.
            None => {
                format!("`sudo mkdir -p {directory} && {print} | sudo tee -a {conf}` trusts it")
            }
            // Who can write to the file decides whom the store trusts.
            Some(_) => {
                format!("`(umask 022; mkdir -p {directory} && {print} >> {conf})` trusts it")
            }
        }
    }

    /// The setting that has the keys of Nix, unless they are in a nix.conf that can be written.
    fn nix_keys_setting(&self) -> Option<&'static str> {
        if self.has_nix_keys {
            return Some(NIX_KEYS_SETTING);
        }
        // On NixOS, it is a symlink to an item, which must not be changed.
        let file = self.nix_conf.canonicalize().ok()?;
        let mut above = file.ancestors();
        above
            .any(|directory| directory.ends_with("nix/store") || directory.ends_with("gnu/store"))
            .then_some(NIXOS_KEYS_SETTING)
    }

    /// How a key of Nix is no longer trusted.
    #[must_use]
    pub(crate) fn distrust_nix_key(&self) -> String {
        match self.nix_keys_setting() {
            Some(setting) => format!("remove it from {setting}"),
            None => format!(
                "remove it from the lines with trusted-public-keys in {}",
                shown_path(&self.nix_conf)
            ),
        }
    }

    /// How a server becomes trusted whose narinfos are signed by one of `keys`, which are not authorized.
    #[must_use]
    pub(crate) fn trust_signer<'a>(&self, mut keys: impl Iterator<Item = &'a str>) -> String {
        let trust_key = self.trust_key();
        let Some(server) = keys.find_map(Acl::official_guix_server) else {
            return format!(
                "if you trust this server, get its public key from its administrator and {trust_key}"
            );
        };

        let own_store = match self.invocation.root {
            None => "; a store of your own (`subst fetch --root DIR`) trusts it from the start",
            Some(_) => "",
        };
        format!(
            "this is the key of the official server {server}: {trust_key}, with \
             share/guix/{server}.pub of a Guix as KEYFILE{own_store}"
        )
    }
}

/// The setting that names the keys of Nix.
const NIX_KEYS_SETTING: &str = "trusted-public-keys, which is used instead of nix.conf (`subst config show` shows where it is set)";
/// The setting of NixOS that its nix.conf has the keys from.
const NIXOS_KEYS_SETTING: &str =
    "`nix.settings.extra-trusted-public-keys` in the configuration of NixOS";
