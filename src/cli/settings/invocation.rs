//! Which settings a later command has to repeat to concern the same store and the same servers.

use std::path::{Path, PathBuf};

use crate::cli::advice::Invocation;
use crate::cli::env::{self, Environment};
use crate::format::store_path::StoreDir;

use super::origin::Origin;
use super::servers::parse_servers;
use super::table::SettingsLayer;

/// The options that stand for `chosen`, with the file that `--config` names. A setting of a settings file
/// needs no option, except for the store and the ACL: another user, such as root, may have other files.
pub(super) fn of(
    chosen: &SettingsLayer,
    config: Option<PathBuf>,
    environment: &Environment,
    store_dir: &StoreDir,
) -> Invocation {
    let urls = chosen.substitute_urls.as_ref();
    let urls = urls.filter(|urls| is_for_run(&urls.origin));
    let urls = urls.and_then(|urls| parse_servers(&urls.value.0).ok());
    let without_credentials = urls.map(|urls| {
        let words: Vec<&str> = urls.iter().map(|url| url.as_str()).collect();
        words.join(" ")
    });

    let config = config.or_else(|| environment.path(env::SUBST_CONFIG));

    Invocation {
        words: Vec::new(),
        netrc_file: chosen
            .netrc_file
            .as_ref()
            .filter(|it| is_for_run(&it.origin))
            .map(|file| absolute(&file.value)),
        insecure_tls: chosen
            .insecure_tls
            .as_ref()
            .is_some_and(|it| it.value && is_for_run(&it.origin)),
        discover: chosen
            .discover
            .as_ref()
            .is_some_and(|it| it.value && is_for_run(&it.origin)),
        root: chosen.root.as_ref().map(|root| absolute(&root.value)),
        store_dir: (store_dir.as_str() != StoreDir::GUIX).then(|| store_dir.as_str().to_owned()),
        acl: chosen.acl.as_ref().map(|acl| absolute(&acl.value)),
        config: config.map(|path| absolute(&path)),
        substitute_urls: without_credentials,
    }
}

/// Whether what was set at `origin` does not hold for later runs anyway.
fn is_for_run(origin: &Origin) -> bool {
    !matches!(origin, Origin::File { .. })
}

/// `path` as an absolute one: hints may be followed in another directory.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    // Fails only without a working directory, or without a name.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
