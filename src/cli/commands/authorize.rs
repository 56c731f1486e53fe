//! `subst authorize`: trusts a server's signing key, lists the trusted keys, or removes one.

mod acl_file;
mod fingerprint;
mod key_source;
mod list;
mod nix;
mod run;

pub(crate) use run::run;
