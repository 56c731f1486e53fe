//! The name of a file of a mirror: the path of its URL, decoded as web servers decode it.

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use crate::format::compression::Compression;
use crate::format::store_path::{HashPart, StorePathRef};

/// The directory of a mirror that is no part of what clients read: the lock, temporary files, tombstones.
pub(super) const OWN_DIRECTORY: &str = "subst";
/// The file in which a mirror describes itself.
pub(super) const CACHE_INFO: &str = "nix-cache-info";

/// What names begin with that are made of the hash of a nar's file.
const BY_HASH: &str = "nar/sha256-";
/// What follows `.nar` in the names of compressed nars.
const NAR_ENDINGS: [&str; 11] = [
    "", ".xz", ".zst", ".zstd", ".bz2", ".gz", ".lzip", ".lz", ".lz4", ".br", ".gzip",
];

/// The longest name, and the longest of a directory or file in it: what file systems and S3 allow.
const KEY_BYTES_MAX: usize = 1000;
const COMPONENT_BYTES_MAX: usize = 200;

/// The name of a file, relative to the mirror, without `.` and `..` and without hidden files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MirrorKey(String);

impl MirrorKey {
    /// The key of the nar at `url`, a field of a narinfo; `None` if the field is not a plain relative
    /// path, or would be the place of something else than a nar.
    #[must_use]
    pub(super) fn of_nar(url: &str) -> Option<Self> {
        let is_relative = Url::parse(url) == Err(url::ParseError::RelativeUrlWithoutBase);
        let is_plain = !url.contains(['?', '#', '\\']) && !url.to_ascii_lowercase().contains("%2f");
        if !is_relative || !is_plain {
            return None;
        }

        let path = percent_decode_str(url).decode_utf8().ok()?;
        // Files of these names make the directory that they are in a mirror.
        Self::of_file(&path).filter(|key| key.file_name() != CACHE_INFO && !key.is_narinfo())
    }

    /// The keys that the nar at `url` may have, a field of a narinfo, wherever clients find the mirror; `None` if the field
    /// is relative and leads to nothing that a key could name.
    #[must_use]
    pub(super) fn all_of_nar(url: &str) -> Option<Vec<Self>> {
        // A query is no part of a file's name.
        let plain = url.split(['?', '#']).next().and_then(Self::of_nar);
        if let Some(key) = plain {
            return Some(vec![key]);
        }

        let is_absolute = Url::parse(url).is_ok();
        let url = Url::parse("http://mirror/").ok()?.join(url).ok()?;
        let path = percent_decode_str(url.path()).decode_utf8_lossy();
        let path = path.strip_prefix('/').unwrap_or(&path);
        let below = path.match_indices('/').map(|(slash, _)| &path[slash + 1..]);
        let mut keys: Vec<Self> = below.filter_map(Self::of_file).collect();
        keys.extend(Self::of_file(path));
        keys.retain(|key| key.is_of_nar() || (!is_absolute && key.0 == path));
        (is_absolute || !keys.is_empty()).then_some(keys)
    }

    /// The key of a file that has this name relative to the mirror; `None` if nothing that clients read has
    /// such a name.
    #[must_use]
    pub(super) fn of_file(path: &str) -> Option<Self> {
        let is_own = path.split('/').next() == Some(OWN_DIRECTORY);
        let is_valid = path.len() <= KEY_BYTES_MAX && path.split('/').all(is_component) && !is_own;
        is_valid.then(|| Self(path.to_owned()))
    }

    /// The key of a nar by the SHA-256 of its file, for one that cannot have another.
    #[must_use]
    pub(super) fn of_file_hash(hash: &[u8; 32]) -> Self {
        let hash = data_encoding::HEXLOWER.encode(hash);
        Self(format!("{BY_HASH}{hash}"))
    }

    /// The key of the narinfo of the item with this hash part.
    #[must_use]
    pub(super) fn of_narinfo(item: &HashPart) -> Self {
        Self(format!("{item}.narinfo"))
    }

    /// The key of the file with the tombstones of nars.
    #[must_use]
    pub(super) fn of_tombstones() -> Self {
        Self(format!("{OWN_DIRECTORY}/tombstones"))
    }

    /// The key of what a mirror says of itself to those that change it.
    #[must_use]
    pub(super) fn of_record() -> Self {
        Self(format!("{OWN_DIRECTORY}/mirror.json"))
    }

    /// The item whose narinfo has this key.
    #[must_use]
    pub(super) fn item_of_narinfo(&self) -> Option<HashPart> {
        HashPart::parse(self.0.strip_suffix(".narinfo")?).ok()
    }

    /// Whether publishers, or mirrors, give nars such names. No directory that such names are in has such a name.
    #[must_use]
    pub(super) fn is_of_nar(&self) -> bool {
        let name = self.file_name();
        match self.0.rsplit_once('/') {
            None => has_nar_ending(name),
            Some((directory, _)) => {
                let method = directory.strip_prefix("nar/").map(Compression::parse);
                let is_of_nars = directory == "nar" || matches!(method, Some(Ok(_)));
                let is_name = has_nar_ending(name) || StorePathRef::parse(name).is_ok();
                is_of_nars && (is_name || self.is_by_hash())
            }
        }
    }

    /// Whether publishers give such a name to a nar of `item`: one without an ending has the name of the item, as with
    /// `guix publish`. Web servers take the ending for the type of a file.
    #[must_use]
    pub(super) fn is_of_nar_of(&self, item: StorePathRef<'_>) -> bool {
        let name = self.file_name();
        self.is_of_nar() && (has_nar_ending(name) || name == item.base())
    }

    /// Whether it is one of [`MirrorKey::of_file_hash`], or looks so.
    #[must_use]
    pub(super) fn is_by_hash(&self) -> bool {
        self.0.starts_with(BY_HASH)
    }

    /// Whether it is that of a narinfo.
    #[must_use]
    pub(super) fn is_narinfo(&self) -> bool {
        self.0.ends_with(".narinfo")
    }

    /// The key of `nix-cache-info`.
    #[must_use]
    pub(super) fn of_cache_info() -> Self {
        Self(CACHE_INFO.to_owned())
    }

    /// The key as text.
    #[must_use]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The directories that it is in, relative to the mirror.
    #[must_use]
    pub(super) fn directory(&self) -> PathBuf {
        Path::new(&self.0)
            .parent()
            .unwrap_or(Path::new(""))
            .to_owned()
    }

    /// The name in its directory.
    #[must_use]
    pub(super) fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for MirrorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn has_nar_ending(name: &str) -> bool {
    let ending = name.rsplit_once(".nar").map(|(_, ending)| ending);
    ending.is_some_and(|ending| NAR_ENDINGS.contains(&ending))
}

fn is_component(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.len() <= COMPONENT_BYTES_MAX
        && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_relative_urls_are_decoded() {
        for (url, key) in [
            ("nar/zstd/0abc-hello-2.12", "nar/zstd/0abc-hello-2.12"),
            ("nar/gzip/0abc-gtk%2B-3.24", "nar/gzip/0abc-gtk+-3.24"),
            ("nar/0abc.nar.xz", "nar/0abc.nar.xz"),
            ("a.nar", "a.nar"),
        ] {
            assert_eq!(MirrorKey::of_nar(url).unwrap().as_str(), key);
        }
    }

    #[test]
    fn names_tell_nars_and_narinfos() {
        let key = |name: &str| MirrorKey::of_file(name).unwrap();
        let hash = "a".repeat(32);
        let (item, by_hash) = (format!("{hash}-x.html"), MirrorKey::of_file_hash(&[1; 32]));
        for name in [
            by_hash.as_str(),
            &format!("nar/{item}"),
            &format!("nar/lzip/{item}"),
            "nar/x.nar",
            "x.nar",
            "x.nar.xz",
        ] {
            assert!(key(name).is_of_nar(), "{name}");
        }
        for name in [
            "index.html",
            "nar",
            "x.nar.xz.sig",
            "x.nar.html",
            "x.narxz",
            "nar.txt",
            "deep/x.nar.xz",
            "nar/index.html",
            "nar/lzip",
            "nar/deep/x.nar",
            "nar/lzip/sha256-00",
            "narx/x.nar",
            &item,
        ] {
            assert!(!key(name).is_of_nar(), "{name}");
        }
        let item = StorePathRef::parse(&item).unwrap();
        let other = format!("nar/{}-x.html", "b".repeat(32));
        assert!(key("nar/x.nar").is_of_nar_of(item));
        assert!(key(&format!("nar/zstd/{}", item.base())).is_of_nar_of(item));
        assert!(!key(&other).is_of_nar_of(item) && !by_hash.is_of_nar_of(item));
        assert!(key(&format!("{hash}.narinfo")).item_of_narinfo().is_some());
        assert!(
            key(&format!("x/{hash}.narinfo"))
                .item_of_narinfo()
                .is_none()
        );
        assert!(key("x.narinfo").item_of_narinfo().is_none());
    }

    #[test]
    fn no_url_leads_out_of_the_mirror_or_to_its_other_files() {
        for url in [
            "",
            "/nar/x",
            "nar//x",
            "nar/x/",
            "../x",
            "nar/../x",
            "nar/%2e%2e/x",
            "nar%2fx",
            "nar%2Fx",
            ".x",
            "nar/.x",
            "nar/x?y",
            "nar/x#y",
            "nar\\x",
            "nar/%00",
            "nar/x%0a",
            "nar/%ff",
            "https://h/nar/x",
            "file:///x",
            "//h/x",
            "subst/lock",
            "nix-cache-info",
            "nar/nix-cache-info",
            "x.narinfo",
        ] {
            assert_eq!(MirrorKey::of_nar(url), None, "{url}");
        }
        assert_eq!(MirrorKey::of_nar(&"x".repeat(201)), None);
        assert_eq!(MirrorKey::of_nar(&"x/".repeat(600)), None);
    }
}
