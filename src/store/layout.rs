//! Where everything of a store lies: the only place that joins paths below the store, state
//! and configuration directories.
//!
//! A layout is data and touches nothing. The names recorded in the database, in temp roots
//! and in items are always those of the [`StoreDir`] (`/gnu/store/...`); the directory that
//! really holds the items is [`Layout::store`], which differs for an embedded store.

use std::path::{Path, PathBuf};

use crate::format::store_path::{Dialect, StoreDir, StorePath};

/// The places of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    store_dir: StoreDir,
    /// The directory of an embedded store.
    root: Option<PathBuf>,
    store: PathBuf,
    state: PathBuf,
    database: PathBuf,
    config: PathBuf,
    /// The directory of Guix's build logs.
    logs: PathBuf,
}

impl Layout {
    /// A store that lies wholly below `root`, with the same names as on a system.
    #[must_use]
    pub(crate) fn embedded(root: &Path, store_dir: StoreDir) -> Self {
        let (state, config) = match store_dir.dialect() {
            Dialect::Guix => ("var/guix", "etc/guix"),
            Dialect::Nix => ("nix/var/nix", "etc/nix"),
        };
        let state = root.join(state);
        Self {
            store: root.join(store_dir.as_str().trim_start_matches('/')),
            database: state.join("db"),
            config: root.join(config),
            logs: root.join("var/log/guix"),
            root: Some(root.to_owned()),
            state,
            store_dir,
        }
    }

    /// The system's store: items lie at the very place that their names say.
    #[must_use]
    pub(crate) fn system(
        store_dir: StoreDir,
        state: PathBuf,
        database: PathBuf,
        config: PathBuf,
        logs: PathBuf,
    ) -> Self {
        Self {
            store: PathBuf::from(store_dir.as_str()),
            store_dir,
            root: None,
            state,
            database,
            config,
            logs,
        }
    }

    /// The part of the name of `directory`, one of this store's, in which symbolic links are followed:
    /// the root of an embedded store, which other users may be able to write to. The system's
    /// directories may be links, as the administrator has set them up.
    #[must_use]
    pub(crate) fn base_of<'a>(&'a self, directory: &'a Path) -> &'a Path {
        let root = self.root.as_deref();
        root.filter(|root| directory.starts_with(root))
            .unwrap_or(directory)
    }

    /// Where the absolute name `path` is, if the directory of this embedded store is the root directory.
    #[must_use]
    pub(crate) fn below_root(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix("/").ok()?;
        self.root.as_ref().map(|root| root.join(below))
    }

    /// The store directory as items and the database name it.
    #[must_use]
    pub(crate) fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// The directory that really holds the items.
    #[must_use]
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// Where `path` lies.
    #[must_use]
    pub(crate) fn item(&self, path: &StorePath) -> PathBuf {
        self.store.join(path.base())
    }

    /// The name in the store directory at which `path` is unpacked before it has its final one. Temp
    /// roots cover it as well.
    #[must_use]
    pub(crate) fn temporary_name(path: &StorePath) -> String {
        format!("{path}.tmp")
    }

    /// The file that is locked while `path` is being made.
    #[must_use]
    pub(crate) fn lock_file(&self, path: &StorePath) -> PathBuf {
        self.store.join(format!("{path}.lock"))
    }

    /// The directory of deduplicated files.
    #[must_use]
    pub(crate) fn links(&self) -> PathBuf {
        self.store.join(LINKS)
    }

    /// The state directory.
    #[must_use]
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// The configuration directory.
    #[must_use]
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// The directory of the store database.
    #[must_use]
    pub(crate) fn database(&self) -> &Path {
        &self.database
    }

    /// The store database.
    #[must_use]
    pub(crate) fn database_file(&self) -> PathBuf {
        self.database.join("db.sqlite")
    }

    /// The file that holds the number of the database's schema, as text.
    #[must_use]
    pub(crate) fn schema_file(&self) -> PathBuf {
        self.database.join("schema")
    }

    /// Locked shared while the database is open, exclusively while its schema is made or changed.
    #[must_use]
    pub(crate) fn big_lock(&self) -> PathBuf {
        self.database.join("big-lock")
    }

    /// The directory with one file of temp roots per process.
    #[must_use]
    pub(crate) fn temp_roots_dir(&self) -> PathBuf {
        self.state.join("temproots")
    }

    /// Locked exclusively by a running collector.
    #[must_use]
    pub(crate) fn gc_lock(&self) -> PathBuf {
        self.state.join("gc.lock")
    }

    /// The directories with links that keep items from the collector.
    #[must_use]
    pub(crate) fn root_directories(&self) -> [PathBuf; 3] {
        ["gcroots", "profiles", "manifests"].map(|name| self.state.join(name))
    }

    /// The directory of links that keep items from the collector.
    #[must_use]
    pub(crate) fn gc_roots_dir(&self) -> PathBuf {
        self.state.join("gcroots")
    }

    /// The directory of links to links elsewhere that keep items from the collector.
    #[must_use]
    pub(crate) fn indirect_roots_dir(&self) -> PathBuf {
        self.gc_roots_dir().join("auto")
    }

    /// The directory of those links that this program makes.
    #[must_use]
    pub(crate) fn named_roots_dir(&self) -> PathBuf {
        self.gc_roots_dir().join("subst")
    }

    /// Whether `link` is one of those that has not got its name yet.
    #[must_use]
    pub(crate) fn is_unfinished_root(&self, link: &Path) -> bool {
        let name = link.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(b".") && link.parent() == Some(&self.named_roots_dir())
    }

    /// Where a running collector of Nix takes new temp roots.
    #[must_use]
    pub(crate) fn gc_socket(&self) -> PathBuf {
        self.state.join("gc-socket/socket")
    }

    /// The keys whose substitutes are accepted.
    #[must_use]
    pub(crate) fn acl(&self) -> PathBuf {
        self.config.join("acl")
    }

    /// The directory of the lookup cache.
    #[must_use]
    pub(crate) fn lookup_cache_dir(&self) -> PathBuf {
        self.state.join("subst")
    }

    /// Where Guix keeps the log of a build of `derivation`, without the suffix that tells how it is
    /// compressed; `None` for a store of Nix.
    #[must_use]
    pub(super) fn build_log(&self, derivation: &StorePath) -> Option<PathBuf> {
        if self.store_dir.dialect() == Dialect::Nix {
            return None;
        }
        let (directory, name) = derivation.base().split_at(2);
        Some(self.logs.join("drvs").join(directory).join(name))
    }

    /// The substitute servers found on the local network, one URL per line.
    #[must_use]
    pub(crate) fn discovered_servers(&self) -> PathBuf {
        self.state.join("discover/publish")
    }
}

/// The name of the directory of deduplicated files inside the store.
pub(super) const LINKS: &str = ".links";

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> StorePath {
        StorePath::parse("0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0").unwrap()
    }

    #[test]
    fn an_embedded_root_mirrors_the_system() {
        let guix = Layout::embedded(Path::new("/r"), StoreDir::parse(StoreDir::GUIX).unwrap());
        assert_eq!(guix.store(), Path::new("/r/gnu/store"));
        assert_eq!(guix.database_file(), Path::new("/r/var/guix/db/db.sqlite"));
        assert_eq!(guix.acl(), Path::new("/r/etc/guix/acl"));
        assert_eq!(
            guix.discovered_servers(),
            Path::new("/r/var/guix/discover/publish")
        );

        let nix = Layout::embedded(Path::new("/r"), StoreDir::parse(StoreDir::NIX).unwrap());
        assert_eq!(nix.store(), Path::new("/r/nix/store"));
        assert_eq!(nix.temp_roots_dir(), Path::new("/r/nix/var/nix/temproots"));
        assert_eq!(nix.config(), Path::new("/r/etc/nix"));
    }

    #[test]
    fn neighbors_of_an_item_have_the_names_the_collector_spares() {
        let layout = Layout::system(
            StoreDir::parse(StoreDir::GUIX).unwrap(),
            "/var/guix".into(),
            "/elsewhere/db".into(),
            "/etc/guix".into(),
            "/var/log/guix".into(),
        );
        let derivation = StorePath::parse("0f9qzp1g3jy45al4zspzqah9f8d5bisp-x.drv").unwrap();
        assert_eq!(
            layout.build_log(&derivation).as_deref(),
            Some(Path::new(
                "/var/log/guix/drvs/0f/9qzp1g3jy45al4zspzqah9f8d5bisp-x.drv"
            ))
        );
        let base = "/gnu/store/0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0";
        assert_eq!(layout.item(&item()), Path::new(base));
        assert_eq!(
            layout.store().join(Layout::temporary_name(&item())),
            PathBuf::from(format!("{base}.tmp"))
        );
        assert_eq!(
            layout.lock_file(&item()),
            PathBuf::from(format!("{base}.lock"))
        );
        assert_eq!(layout.big_lock(), Path::new("/elsewhere/db/big-lock"));
    }
}
