//! Which store is used, and where its state is.

use std::path::PathBuf;

use crate::cli::env::{self, Environment};
use crate::cli::output::shown_path;
use crate::format::credentials::without_credentials;
use crate::format::store_path::{Dialect, StoreDir};
use crate::store::Layout;

use super::error::SettingsError;
use super::table::SettingsLayer;

/// The kind of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// The system's, shared with a daemon; it exists.
    System,
    /// One below `--root`, made on first use.
    Embedded,
}

/// The store that the settings select.
pub(super) fn layout(
    chosen: &SettingsLayer,
    environment: &Environment,
) -> Result<(StoreKind, Layout), SettingsError> {
    let store_dir = match &chosen.store_dir {
        None => StoreDir::parse(StoreDir::GUIX).expect("Guix's store directory is one"),
        Some(setting) => StoreDir::parse(&setting.value).map_err(|error| {
            let message = error.to_string();
            SettingsError::value(&setting.origin, without_credentials(&message))
        })?,
    };

    if let Some(root) = &chosen.root {
        let absolute = std::path::absolute(&root.value).map_err(|error| {
            // Without a working directory.
            let message = format!(
                "no absolute path leads to {}: {error}",
                shown_path(&root.value)
            );
            SettingsError::value(&root.origin, message)
        })?;
        return Ok((StoreKind::Embedded, Layout::embedded(&absolute, store_dir)));
    }

    let (state, config) = match store_dir.dialect() {
        Dialect::Guix => ("/var/guix", "/etc/guix"),
        Dialect::Nix => ("/nix/var/nix", "/etc/nix"),
    };
    let state = environment
        .path(env::GUIX_STATE_DIRECTORY)
        .unwrap_or_else(|| state.into());
    let database = environment
        .path(env::GUIX_DATABASE_DIRECTORY)
        .unwrap_or_else(|| state.join("db"));
    let nix_config = match store_dir.dialect() {
        Dialect::Guix => None,
        Dialect::Nix => environment.path(env::NIX_CONF_DIR),
    };
    let config = nix_config
        .or_else(|| environment.path(env::GUIX_CONFIGURATION_DIRECTORY))
        .unwrap_or_else(|| config.into());

    let logs = environment
        .path(env::GUIX_LOG_DIRECTORY)
        .unwrap_or_else(|| "/var/log/guix".into());

    Ok((
        StoreKind::System,
        Layout::system(store_dir, state, database, config, logs),
    ))
}

/// The system's store, whatever settings say.
pub(super) fn usual_layout(environment: &Environment) -> (StoreKind, Layout) {
    layout(&SettingsLayer::default(), environment).expect("nothing is set that can be invalid")
}

/// Where the lookup cache may be, best first: beside the store's state when we may write
/// there, else in the user's cache directory.
pub(super) fn cache_dirs(
    layout: &Layout,
    kind: StoreKind,
    environment: &Environment,
) -> Vec<PathBuf> {
    let own = environment.cache_home().map(|home| home.join("subst"));
    let user = (kind == StoreKind::System).then_some(own).flatten();
    [layout.lookup_cache_dir()]
        .into_iter()
        .chain(user)
        .collect()
}
