//! The `nix-cache-info` file, in which a substitute server describes itself.
//!
//! `Key: value` lines. Unknown keys and lines without a colon are ignored, and the last of a
//! repeated key counts, as in Nix. A server without the file is usable with the defaults.

use super::escape::clip;
use super::store_path::StoreDir;

/// A server's description of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CacheInfo {
    /// The store directory its items are made for; a server for another one is unusable.
    pub(crate) store_dir: Option<String>,
    /// Whether the server accepts many parallel lookups.
    pub(crate) want_mass_query: bool,
    /// Nix tries servers with lower numbers first; `None` if there is no such line.
    pub(crate) priority: Option<u32>,
}

impl CacheInfo {
    /// Parses `text`. Never fails: a line that cannot be read is ignored.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match key.trim() {
                "StoreDir" => info.store_dir = Some(clip(value, STORE_DIR_MAX_BYTES).to_owned()),
                "WantMassQuery" => info.want_mass_query = value == "1",
                "Priority" => info.priority = value.parse().ok(),
                _ => {}
            }
        }

        info
    }

    /// The text of a server without a preference, whose items are for `store_dir`.
    #[must_use]
    pub(crate) fn text_for(store_dir: &StoreDir) -> String {
        format!(
            "StoreDir: {}\nWantMassQuery: 1\nPriority: 50\n",
            store_dir.as_str()
        )
    }
}

/// What is kept of a `StoreDir`. Longer ones are not those of any store.
const STORE_DIR_MAX_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_real_servers_say() {
        let guix = CacheInfo::parse("StoreDir: /gnu/store\nWantMassQuery: 0\nPriority: 100\n");
        let expected = CacheInfo {
            store_dir: Some("/gnu/store".into()),
            want_mass_query: false,
            priority: Some(100),
        };
        assert_eq!(guix, expected);
    }

    #[test]
    fn tolerates_the_rest() {
        let info = CacheInfo::parse(
            "<html>\r\nStoreDir:/nix/store\r\nFoo: bar\nPriority: x\nWantMassQuery: 0\nWantMassQuery: 1",
        );
        assert_eq!(info.store_dir.as_deref(), Some("/nix/store"));
        assert!(info.want_mass_query);
        assert_eq!(info.priority, None);
        assert_eq!(CacheInfo::parse(""), CacheInfo::default());
    }
}
