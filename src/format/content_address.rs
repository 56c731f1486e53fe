//! Content addresses (`CA`): what the store path of an item of Nix was computed from.
//!
//! `fixed:r:sha256:HASH` of a nar, `fixed:sha256:HASH` of a file, `text:sha256:HASH` of a file that
//! has references. Others are not supported: other algorithms, and items that refer to themselves,
//! whose hash is that of a changed nar.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::base32;
use super::hash::{NarHash, decode_base16};
use super::store_path::{StoreDir, StorePathRef};

/// No content address is longer, in bytes.
const ADDRESS_BYTES_MAX: usize = 128;

/// What was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HashedContent {
    /// The nar.
    Nar,
    /// The bytes of the one file that the item is, which has no references.
    File,
    /// The bytes of the one file that the item is.
    Text,
}

/// A content address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentAddress {
    /// What was hashed.
    pub(crate) content: HashedContent,
    /// Its SHA-256.
    pub(crate) hash: [u8; 32],
}

impl ContentAddress {
    /// Parses the value of a `CA` field; `None` if it is not supported.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > ADDRESS_BYTES_MAX {
            return None;
        }

        let (content, hash) = if let Some(rest) = text.strip_prefix("fixed:r:") {
            (HashedContent::Nar, rest)
        } else if let Some(rest) = text.strip_prefix("fixed:") {
            (HashedContent::File, rest)
        } else {
            (HashedContent::Text, text.strip_prefix("text:")?)
        };
        let (hash, _) = NarHash::parse(hash).ok().filter(|_| hash.contains(':'))?;
        Some(Self {
            content,
            hash: *hash.as_bytes(),
        })
    }

    /// The base name of the item with this address that is called `name` and refers to
    /// `references`, which are sorted and each once; `None` if there is no such item.
    pub(crate) fn item_base(
        &self,
        name: &str,
        references: &[StorePathRef<'_>],
        store_dir: &StoreDir,
    ) -> Option<String> {
        let (mut kind, hash) = match self.content {
            HashedContent::Nar => ("source".to_owned(), self.hash),
            HashedContent::Text => ("text".to_owned(), self.hash),
            HashedContent::File if references.is_empty() => {
                let inner = format!("fixed:out:sha256:{}:", HEXLOWER.encode(&self.hash));
                ("output:out".to_owned(), Sha256::digest(inner).into())
            }
            HashedContent::File => return None,
        };
        for reference in references {
            kind.push(':');
            kind.push_str(&store_dir.full_name(*reference));
        }

        let hash = HEXLOWER.encode(&hash);
        let fingerprint = format!("{kind}:sha256:{hash}:{}:{name}", store_dir.as_str());
        let mut part = [0; 20];
        for (position, byte) in Sha256::digest(fingerprint).into_iter().enumerate() {
            part[position % 20] ^= byte;
        }
        Some(format!("{}-{name}", base32::encode(&part)))
    }
}

/// Whether Nix can read `text` as a content address: it cannot use an item with another one in its database.
/// Only hashes in base 16 and 32, as Nix writes them, and not those of Git trees (`fixed:git:`), which Nix reads
/// only with an experimental feature.
pub(crate) fn is_readable_by_nix(text: &str) -> bool {
    let kinds = ["fixed:r:", "fixed:", "text:"];
    let hash = kinds.iter().find_map(|kind| text.strip_prefix(kind));
    match hash.and_then(|hash| hash.split_once(':')) {
        Some(("md5", digits)) => is_hash_of::<16>(digits),
        Some(("sha1", digits)) => is_hash_of::<20>(digits),
        Some(("sha256", digits)) => is_hash_of::<32>(digits),
        Some(("sha512", digits)) => is_hash_of::<64>(digits),
        _ => false,
    }
}

fn is_hash_of<const N: usize>(digits: &str) -> bool {
    base32::decode::<N>(digits).is_ok() || decode_base16::<N>(digits).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(address: &str, name: &str, references: &[&str]) -> Option<String> {
        let references: Vec<_> = references
            .iter()
            .map(|base| StorePathRef::parse(base).unwrap())
            .collect();
        let store_dir = StoreDir::parse(StoreDir::NIX).unwrap();
        ContentAddress::parse(address)?.item_base(name, &references, &store_dir)
    }

    fn hash_of(bytes: &[u8]) -> String {
        format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(bytes)))
    }

    /// What Nix answers to `builtins.toFile "foo" "bar"`, to `toFile "baz"` of that name, and to
    /// `nix-store --print-fixed-path`.
    #[test]
    fn items_have_the_names_that_nix_gives_them() {
        let foo = "vxjiwkjkn7x4079qvh1jkl5pn05j2aw0-foo";
        let found = item(&format!("text:{}", hash_of(b"bar")), "foo", &[]);
        assert_eq!(found.as_deref(), Some(foo));

        let text = format!("text:{}", hash_of(format!("/nix/store/{foo}").as_bytes()));
        let found = item(&text, "baz", &[foo]);
        assert_eq!(
            found.as_deref(),
            Some("5xd714cbfnkz02h2vbsj4fm03x3f15nf-baz")
        );

        let hash = "sha256:08813cbee9903c62be4c5027726a418a300da4500b2d369d3af9286f4815ceba";
        let found = item(&format!("fixed:r:{hash}"), "bar", &[]);
        assert_eq!(
            found.as_deref(),
            Some("4q0pg5zpfmznxscq3avycvf9xdvx50n3-bar")
        );
        let found = item(&format!("fixed:{hash}"), "bar", &[]);
        assert_eq!(
            found.as_deref(),
            Some("k17ysmlc7ih04qi7ss9iilz2866514i1-bar")
        );
        assert_eq!(item(&format!("fixed:{hash}"), "bar", &[foo]), None);
    }

    #[test]
    fn what_nix_cannot_read_is_told_from_what_it_can() {
        let digits = "0".repeat(52);
        for address in [
            format!("text:sha256:{digits}"),
            format!("fixed:r:sha256:{}", "0f".repeat(32)),
            format!("fixed:r:sha1:{}", "0F".repeat(20)),
            format!("fixed:md5:{}", "0".repeat(26)),
            format!("fixed:sha512:{}", "0".repeat(103)),
        ] {
            assert!(is_readable_by_nix(&address), "{address}");
        }
        for address in [
            String::new(),
            "x".to_owned(),
            "fixed:r:sha256:0".to_owned(),
            format!("fixed:sha3:{digits}"),
            format!("fixed:r:sha256:{}e", &digits[1..]),
            // The first digit has bits beyond the last byte.
            format!("fixed:r:sha256:z{}", &digits[1..]),
            format!("fixed:sha1:{}g", "0".repeat(39)),
            format!("fixed:git:sha1:{}", "0f".repeat(20)),
            format!("sha256:{digits}"),
        ] {
            assert!(!is_readable_by_nix(&address), "{address}");
        }
    }

    #[test]
    fn other_addresses_are_not_supported() {
        let digits = "0".repeat(52);
        assert!(ContentAddress::parse(&format!("text:sha256:{digits}")).is_some());
        for address in [
            "",
            "fixed:r:sha256:",
            &format!("sha256:{digits}"),
            &format!("fixed:git:sha256:{digits}"),
            &format!("text:r:sha256:{digits}"),
            &format!("fixed:r:sha1:{digits}"),
            &format!("fixed:r:sha256-{}=", "A".repeat(43)),
            &format!("fixed:r:sha256:{digits}{digits}{digits}"),
        ] {
            assert_eq!(ContentAddress::parse(address), None, "{address}");
        }
    }
}
