//! `subst authorize` for `/nix/store`: its keys are in nix.conf, which belongs to Nix and is not changed.
//! The key is read and verified all the same, for the whole command that makes it trusted.

use std::ffi::OsStr;
use std::path::Path;

use crate::cli::args::AuthorizeArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::shell_command::quoted;
use crate::trust::acl::AuthorizedKeys;
use crate::trust::guix::PublicKey;
use crate::trust::nix::{TrustedKey, TrustedKeys};

use super::key_source::KeySource;

/// Succeeds if the key that `args` name is trusted already.
///
/// # Errors
/// It is not, or cannot be read; or a key is to be removed. The hint is what to do instead.
pub(super) fn run(context: &Context, args: &AuthorizeArgs) -> Result<Exit, CliError> {
    let advice = context.settings.advice();
    if args.fingerprint.is_some() {
        let text = "--fingerprint is for keys of Guix; a key of Nix is given as a whole";
        return Err(CliError::Usage(text.to_owned()));
    }
    if args.remove.is_some() {
        return Err(CliError::Misuse {
            what: "`subst authorize` removes keys of Guix only".to_owned(),
            hint: advice.distrust_nix_key(),
        });
    }

    let key = named_key(context, args.file.as_deref())?;
    let Some(key) = key else {
        return Err(CliError::Misuse {
            what: "no key was given for /nix/store".to_owned(),
            hint: format!(
                "get the public key NAME:KEY of the server from its administrator, and {}",
                advice.trust_key()
            ),
        });
    };
    if let AuthorizedKeys::Nix(keys) = context.keys()?
        && keys.iter().any(|trusted| trusted.id() == key.id())
    {
        let text = format!("the key {} is already trusted", key.name());
        context.output.note(&text);
        return Ok(Exit::Done);
    }
    Err(CliError::Misuse {
        what: format!(
            "`subst authorize` cannot authorize the key {}: Nix has its keys in nix.conf, not in an ACL",
            key.name()
        ),
        hint: advice.trust_nix_key(key.id()),
    })
}

/// The key of Nix in `argument` itself, or in the file or the input that it names; `None` if it names
/// a server, which has no usual place for its key, or nothing.
fn named_key(context: &Context, argument: Option<&Path>) -> Result<Option<TrustedKey>, CliError> {
    let text = argument.and_then(Path::to_str).unwrap_or_default();
    if let Some(key) = only_key(text.as_bytes()) {
        return Ok(Some(key));
    }
    let source = KeySource::parse(argument)?;
    if matches!(source, KeySource::Server(_)) {
        return Ok(None);
    }

    let content = source.read_text(&context.output)?;
    if content.trim_ascii().is_empty() {
        return Ok(None);
    }
    if let Some(key) = only_key(&content) {
        return Ok(Some(key));
    }
    let name = source.name();
    if PublicKey::parse(&content).is_ok() {
        let command = context
            .settings
            .advice()
            .authorize_for(None, &file_word(argument));
        return Err(CliError::Misuse {
            what: format!(
                "{name} has a key of Guix; for /nix/store, keys are of the form NAME:BASE64"
            ),
            hint: format!("`{command}` authorizes it for /gnu/store"),
        });
    }
    let list = String::from_utf8_lossy(&content);
    Err(match TrustedKeys::parse(&list) {
        Ok(_) => CliError::Usage(format!("{name} has several keys; name one")),
        Err(source) => CliError::Key {
            what: format!("{name} has no key that can be authorized"),
            source: Box::new(source),
        },
    })
}

/// The key of Nix in `text`, if that is all that is in it.
pub(super) fn only_key(text: &[u8]) -> Option<TrustedKey> {
    let keys = TrustedKeys::parse(std::str::from_utf8(text).ok()?).ok()?;
    let mut keys = keys.iter();
    let key = keys.next()?.clone();
    keys.next().is_none().then_some(key)
}

/// The word for a file in a command; standard input is what the next command reads, too.
pub(super) fn file_word(argument: Option<&Path>) -> String {
    quoted(
        &argument
            .map_or(OsStr::new("-"), Path::as_os_str)
            .to_string_lossy(),
    )
}
