//! `subst authorize`: trusts a server's signing key.

use std::io::Write as _;
use std::path::Path;

use crate::cli::args::AuthorizeArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::file_trust::{self, FileSelection};
use crate::cli::settings::StoreKind;
use crate::format::store_path::Dialect;
use crate::trust::acl::Acl;
use crate::trust::guix::PublicKey;

/// Adds the key to the ACL, which is created if necessary.
///
/// # Errors
/// The key or the ACL cannot be read, or the ACL not be written; it is as before then.
pub(crate) fn run(context: &Context, args: &AuthorizeArgs) -> Result<Exit, CliError> {
    if context.settings.store_dir().dialect() == Dialect::Nix {
        let text = "keys for /nix/store are set with --trusted-public-keys or in nix.conf";
        return Err(CliError::Usage(text.to_owned()));
    }

    let key = read_key(context, args.file.as_deref())?;
    let path = &context.settings.acl;
    if let Some(fault) = context.acl_fault() {
        // The keys that are in it now would be trusted from then on.
        if context.settings.acl_selection == FileSelection::Implicit {
            return Err(CliError::UnsafeAcl {
                path: path.clone(),
                fault,
            });
        }
        context.output.warn(&file_trust::warning(
            "ACL",
            path,
            &fault,
            FileSelection::Explicit,
        ));
    }

    let mut acl = match (context.read_acl()?, context.settings.store_kind) {
        (Some(acl), _) => acl,
        (None, StoreKind::Embedded) => Acl::official_guix_servers(),
        (None, StoreKind::System) => Acl::default(),
    };
    if !acl.authorize(key) {
        context.output.note("the key is already authorized");
        return Ok(Exit::Done);
    }

    replace(path, &acl.to_string()).map_err(CliError::file("writing", path))?;
    context
        .output
        .note(&format!("the key is authorized now, in {}", path.display()));
    Ok(Exit::Done)
}

fn read_key(context: &Context, file: Option<&Path>) -> Result<PublicKey, CliError> {
    let (what, text) = match file.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            if let Ok(Err(fault)) = file_trust::check(path, None) {
                let warning =
                    file_trust::warning("key file", path, &fault, FileSelection::Explicit);
                context.output.warn(&warning);
            }
            (path.display().to_string(), std::fs::read(path))
        }
        None => {
            let mut text = Vec::new();
            let read = std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut text);
            ("standard input".to_owned(), read.map(|_| text))
        }
    };

    let text = text.map_err(CliError::file("reading", &what))?;
    PublicKey::parse(&text).map_err(|source| CliError::Key {
        what: format!("{what} has no key that can be authorized"),
        source: Box::new(source),
    })
}

/// Replaces the file in one step, so that no process reads half an ACL.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new.{}", std::process::id()));
    // A killed process may have left it, or another user a symlink, which is not followed.
    match std::fs::remove_file(&name) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }

    let mut file = std::fs::File::create_new(&name)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&name, path)
}
