//! The authorized keys with their fingerprints, as lines or as JSON (`docs/schema/authorize-list.json`).

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::trust::acl::{Acl, AuthorizedKeys};
use crate::trust::nix::TrustedKeys;

use super::fingerprint::KeyFingerprint;

/// A key, as it is listed.
#[derive(Serialize)]
struct ListedKey {
    /// What names it: a fingerprint, or NAME:BASE64 for Nix.
    fingerprint: String,
    /// The official server whose key it is.
    server: Option<&'static str>,
    /// Why it is not used.
    unusable: Option<String>,
}

/// Prints the keys whose signatures are accepted.
///
/// # Errors
/// The keys cannot be read, or the output cannot be written.
pub(super) fn list(context: &Context) -> Result<Exit, CliError> {
    let keys = match context.keys()? {
        AuthorizedKeys::Guix(acl) => guix_keys(&acl),
        AuthorizedKeys::Nix(keys) => nix_keys(&keys),
        AuthorizedKeys::AllowUnauthenticated => Vec::new(),
    };

    if context.settings.json {
        context.output.json(&keys)?;
    } else {
        let lines = keys.iter().map(|key| line(key).into());
        context.output.lines(lines)?;
    }
    Ok(Exit::Done)
}

fn guix_keys(acl: &Acl) -> Vec<ListedKey> {
    let usable = acl.keys().map(|key| ListedKey {
        fingerprint: KeyFingerprint::of_id(key.id()).digits().to_owned(),
        server: Acl::official_guix_server(key.id()),
        unusable: None,
    });
    let unusable = acl.unusable_keys().map(|key| ListedKey {
        fingerprint: KeyFingerprint::of_id(key.id()).digits().to_owned(),
        server: None,
        unusable: Some(key.why.to_string()),
    });
    usable.chain(unusable).collect()
}

fn nix_keys(keys: &TrustedKeys) -> Vec<ListedKey> {
    let keys = keys.iter().map(|key| ListedKey {
        fingerprint: key.id().to_string(),
        server: None,
        unusable: None,
    });
    keys.collect()
}

fn line(key: &ListedKey) -> String {
    match (key.server, &key.unusable) {
        (Some(server), _) => format!("{}  {server}", key.fingerprint),
        (None, Some(why)) => format!("{}  not used: {why}", key.fingerprint),
        (None, None) => key.fingerprint.clone(),
    }
}
