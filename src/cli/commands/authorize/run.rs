//! Adds a key to the ACL or removes one, as the options say.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use url::Url;

use crate::cli::args::AuthorizeArgs;
use crate::cli::confinement::DiskChanges;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{say, shown_path};
use crate::format::server_url::redacted;
use crate::format::store_path::{Dialect, StoreDir};
use crate::http::TlsVerification;
use crate::trust::acl::Acl;
use crate::trust::guix::PublicKey;

use super::acl_file::AclFile;
use super::fingerprint::KeyFingerprint;
use super::key_source::{KeySource, download};
use super::list::list;
use super::nix;

/// Lists the keys, removes one, or adds one to the ACL, which is created if necessary.
///
/// # Errors
/// The key or the ACL cannot be read, or the ACL not be written; it is as before then.
pub(crate) fn run(context: &Context, args: &AuthorizeArgs) -> Result<Exit, CliError> {
    if args.list {
        return list(context);
    }
    if context.settings.store_dir().dialect() == Dialect::Nix {
        return nix::run(context, args);
    }
    if let Some(key) = &args.remove {
        return remove(context, key);
    }

    let wanted = args.fingerprint.as_deref().map(whole_fingerprint);
    let wanted = wanted.transpose()?;
    let source = KeySource::parse(args.file.as_deref())?;
    if let Some(text) = args.file.as_deref().and_then(Path::to_str)
        && nix::only_key(text.as_bytes()).is_some()
    {
        return Err(key_of_nix(context, args, &source));
    }
    match &source {
        KeySource::Server(url) => authorize_server(context, &source, url, wanted.as_ref()),
        KeySource::Input | KeySource::File(_) => {
            let text = source.read_text(&context.output)?;
            let key = source.parse_key(&text);
            let key = key.map_err(|error| match nix::only_key(&text) {
                Some(_) => key_of_nix(context, args, &source),
                None => error,
            })?;
            check_fingerprint(&source, &key, wanted.as_ref())?;
            add(context, AclFile::open(context)?, key)
        }
    }
}

/// Why the key of `source` is not authorized: it is one of Nix.
fn key_of_nix(context: &Context, args: &AuthorizeArgs, source: &KeySource) -> CliError {
    let file = nix::file_word(args.file.as_deref());
    let advice = context.settings.advice();
    let command = advice.authorize_for(Some(StoreDir::NIX), &file);
    CliError::Misuse {
        what: format!("{} has a key of Nix, not of Guix", source.name()),
        hint: format!("for /nix/store, `{command}` says how to trust it"),
    }
}

/// Reads the fingerprint of a key from the network, which has to be whole.
fn whole_fingerprint(text: &str) -> Result<KeyFingerprint, CliError> {
    let fingerprint = KeyFingerprint::parse(text).filter(KeyFingerprint::is_whole);
    fingerprint.ok_or_else(|| {
        let text = "--fingerprint: a fingerprint has 64 hexadecimal digits: all of `q` in the key";
        CliError::Usage(text.to_owned())
    })
}

/// Adds the key of a server if it has the `wanted` fingerprint, or if the user agrees.
fn authorize_server(
    context: &Context,
    source: &KeySource,
    url: &Url,
    wanted: Option<&KeyFingerprint>,
) -> Result<Exit, CliError> {
    if wanted.is_none() && !io::stdin().is_terminal() {
        let command = context
            .settings
            .advice()
            .authorize("--fingerprint FINGERPRINT");
        let text = format!(
            "the key of {url} can only be shown and confirmed on a terminal; elsewhere, run \
             `{command} {url}` with the fingerprint that its administrator has published",
            url = redacted(url)
        );
        return Err(CliError::Usage(text));
    }

    let file = AclFile::open(context)?;
    let network = context.network(DiskChanges {
        store: false,
        directories: &[file.directory()],
    })?;
    let text = download(&network, url).map_err(CliError::Network)?;
    let key = source.parse_key(&text)?;
    check_fingerprint(source, &key, wanted)?;
    let asks = wanted.is_none() && !file.acl.contains(key.as_sexp());
    if asks && !user_agrees(context, &file, url, &key)? {
        context.output.note("the key is not authorized");
        return Ok(Exit::Refused);
    }
    add(context, file, key)
}

/// Checks that the key of `source` is the `wanted` one.
fn check_fingerprint(
    source: &KeySource,
    key: &PublicKey,
    wanted: Option<&KeyFingerprint>,
) -> Result<(), CliError> {
    let found = KeyFingerprint::of_id(key.id());
    match wanted {
        Some(wanted) if *wanted != found => Err(CliError::OtherKey {
            source_name: source.name(),
            found: found.digits().to_owned(),
            wanted: wanted.digits().to_owned(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Shows the key at `url` and asks whether it is to be trusted.
fn user_agrees(
    context: &Context,
    file: &AclFile,
    url: &Url,
    key: &PublicKey,
) -> Result<bool, CliError> {
    let fingerprint = KeyFingerprint::of_id(key.id());
    say(&format!(
        "{} has a key with the fingerprint\n  {}",
        redacted(url),
        fingerprint.digits()
    ));
    if let Some(server) = Acl::official_guix_server(key.id()) {
        say(&format!(
            "It is the key of {server}, which is part of Guix."
        ));
    }
    if url.scheme() == "http" {
        say(
            "The connection was not encrypted: anyone between you and the server may have replaced the key.",
        );
    } else if url.scheme() == "https"
        && context.settings.http.verify_tls == TlsVerification::Insecure
    {
        say(
            "The certificate of the server was not verified: anyone between you and the server may \
             have replaced the key.",
        );
    }
    say(&format!(
        "Compare it with the fingerprint that the server's administrator has published, or with `q` \
         in /etc/guix/signing-key.pub on the server.\n\
         Trust it to sign any store item, in {}? [y/N]",
        shown_path(file.path())
    ));

    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(CliError::file("read", "standard input"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES"))
}

/// Adds `key` to the ACL.
fn add(context: &Context, mut file: AclFile, key: PublicKey) -> Result<Exit, CliError> {
    let name = key.short_name().to_owned();
    file.begin_change(context)?;
    if !file.acl.authorize(key) {
        let text = format!("the key {name} is already authorized");
        context.output.note(&text);
        return Ok(Exit::Done);
    }

    file.write()?;
    let text = format!(
        "the key {name} is authorized now, in {}",
        file.path().display()
    );
    context.output.note(&text);
    Ok(Exit::Done)
}

/// Removes the key that `text` names: by the first digits of its fingerprint, or a file that has it.
fn remove(context: &Context, text: &str) -> Result<Exit, CliError> {
    let list = context.settings.advice().authorize("--list");
    let fingerprint = match KeyFingerprint::parse(text) {
        Some(fingerprint) => fingerprint,
        None if text.bytes().all(|digit| digit.is_ascii_hexdigit())
            && !Path::new(text).exists() =>
        {
            return Err(CliError::Usage(format!(
                "--remove: `{text}` has fewer than 16 digits of a fingerprint, and is no file; `{list}` \
                 shows the keys"
            )));
        }
        None => {
            let source = KeySource::File(Path::new(text).to_owned());
            KeyFingerprint::of_id(source.read(&context.output)?.id())
        }
    };

    let mut file = AclFile::open(context)?;
    file.begin_change(context)?;
    let found = fingerprint.matches(&file.acl);
    let [id] = &found[..] else {
        let acl = shown_path(file.path());
        let digits = fingerprint.digits();
        let what = match found.is_empty() {
            true => format!("no key in {acl} has the fingerprint {digits}"),
            false => format!(
                "{} keys in {acl} have fingerprints that begin with {digits}",
                found.len()
            ),
        };
        return Err(CliError::Usage(format!("{what}; `{list}` shows the keys")));
    };

    file.acl.remove(id);
    file.write()?;
    let digits = KeyFingerprint::of_id(id);
    let text = format!(
        "the key {} is no longer authorized, in {}",
        &digits.digits()[..SHOWN_DIGITS.min(digits.digits().len())],
        file.path().display()
    );
    context.output.note(&text);
    Ok(Exit::Done)
}

/// As many digits as other messages show of a key.
const SHOWN_DIGITS: usize = 16;
