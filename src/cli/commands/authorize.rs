//! `subst authorize`: trusts a server's signing key.

use std::os::fd::AsFd as _;
use std::path::Path;

use crate::cli::args::AuthorizeArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::file_trust::{self, FileSelection};
use crate::cli::settings::StoreKind;
use crate::format::store_path::Dialect;
use crate::no_follow;
use crate::store::Layout;
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
    let name = key.short_name().to_owned();
    if !acl.authorize(key) {
        let text = format!("the key {name} is already authorized");
        context.output.note(&text);
        return Ok(Exit::Done);
    }

    replace(&context.settings.layout, path, &acl.to_string())
        .map_err(CliError::file("write", path))?;
    let text = format!("the key {name} is authorized now, in {}", path.display());
    context.output.note(&text);
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

    let text = text.map_err(CliError::file("read", &what))?;
    PublicKey::parse(&text).map_err(|source| CliError::Key {
        what: format!("{what} has no key that can be authorized"),
        source: Box::new(source),
    })
}

/// Replaces the ACL in one step, so that no process reads half of it.
fn replace(layout: &Layout, path: &Path, text: &str) -> std::io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let opened = no_follow::create_directory(layout.base_of(directory), directory)?;
    let name = path.file_name().unwrap_or_default();
    no_follow::replace_file(opened.as_fd(), name, text.as_bytes(), no_follow::FOR_ALL)
}
