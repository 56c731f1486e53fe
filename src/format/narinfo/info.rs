//! A parsed narinfo, whose fields are pieces of its text.

use super::download::Download;
use super::fields::{Field, Scalars};
use super::limits::SIGNATURES_KEPT_MAX;
use super::quirks::Quirks;
use super::span::Span;
use crate::format::hash::{HashForm, NarHash};
use crate::format::store_path::{Dialect, StorePathRef, split_blanks};

/// The key of a Guix signature. The signed text ends before its first occurrence, wherever that
/// is.
const SIGNATURE_MARK: &str = "Signature:";

/// A server's description of a store item: claims, until [`crate::trust::verdict::authorize`] has
/// verified a signature.
#[derive(Debug, Clone)]
pub struct NarInfo {
    pub(super) text: Box<str>,
    pub(super) dialect: Dialect,
    pub(super) scalars: Scalars,
    pub(super) store_path: Span,
    pub(super) nar_hash: NarHash,
    pub(super) nar_hash_form: HashForm,
    pub(super) nar_size: u64,
    pub(super) references_len: u32,
    pub(super) deriver: Option<Span>,
    pub(super) downloads: Vec<Download>,
    pub(super) nix_signatures: Vec<Span>,
    pub(super) quirks: Quirks,
}

impl NarInfo {
    /// The text, byte for byte.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The described item.
    #[must_use]
    pub fn store_path(&self) -> StorePathRef<'_> {
        StorePathRef::from_checked(self.store_path.of(&self.text))
    }

    /// The hash of the uncompressed nar.
    #[must_use]
    pub fn nar_hash(&self) -> NarHash {
        self.nar_hash
    }

    /// The size of the uncompressed nar, in bytes.
    #[must_use]
    pub fn nar_size(&self) -> u64 {
        self.nar_size
    }

    /// The items it refers to, in the order of the text; the item itself may be among them.
    pub fn references(&self) -> impl Iterator<Item = StorePathRef<'_>> + Clone {
        split_blanks(self.scalar(Field::References).unwrap_or("")).map(StorePathRef::from_checked)
    }

    /// The number of references.
    #[must_use]
    pub fn references_len(&self) -> usize {
        self.references_len as usize
    }

    /// The derivation that built the item, if it is given.
    #[must_use]
    pub fn deriver(&self) -> Option<StorePathRef<'_>> {
        self.deriver
            .map(|span| StorePathRef::from_checked(span.of(&self.text)))
    }

    /// The system it was built for, such as `x86_64-linux`.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.scalar(Field::System)
    }

    /// The content address (`CA`) of an item whose name depends on its content (Nix).
    #[must_use]
    pub fn ca(&self) -> Option<&str> {
        self.scalar(Field::Ca)
    }

    /// The downloads of the nar, in the order of the text.
    #[must_use]
    pub fn downloads(&self) -> &[Download] {
        &self.downloads
    }

    /// The `URL` of one of this narinfo's own [`downloads`](Self::downloads): relative to the
    /// server's URL or absolute, and chosen by the server.
    #[must_use]
    pub fn download_url(&self, download: &Download) -> &str {
        download.url.of(&self.text)
    }

    /// Where in the text the `URL` of one of this narinfo's own downloads ends.
    #[must_use]
    pub(crate) fn download_url_end(&self, download: &Download) -> usize {
        download.url.end()
    }

    /// The value of the first `Signature` field (Guix).
    #[must_use]
    pub fn guix_signature(&self) -> Option<&str> {
        self.scalar(Field::Signature)
    }

    /// The values of all `Signature` fields, of which stock Guix uses the first one only. All of
    /// them are for the same [signed text](Self::signed_text).
    pub(crate) fn guix_signatures(&self) -> impl Iterator<Item = &str> {
        let rest = self
            .signed_text()
            .map_or("", |signed| &self.text[signed.len()..]);
        let lines = rest
            .lines()
            .filter_map(|line| line.strip_prefix(SIGNATURE_MARK));
        let first = self.guix_signature();
        let further = lines
            .map(str::trim_ascii)
            .filter(move |value| Some(*value) != first);
        first.into_iter().chain(further).take(SIGNATURES_KEPT_MAX)
    }

    /// The values of all `Sig` fields (Nix).
    pub fn nix_signatures(&self) -> impl Iterator<Item = &str> {
        self.nix_signatures.iter().map(|span| span.of(&self.text))
    }

    /// The text that a Guix signature covers: everything before the first `Signature:`, wherever
    /// that is.
    #[must_use]
    pub fn signed_text(&self) -> Option<&str> {
        let end = memchr::memmem::find(self.text.as_bytes(), SIGNATURE_MARK.as_bytes())?;
        Some(&self.text[..end])
    }

    /// Whether the first `len` bytes, which a signature covers, contain all of `StorePath`,
    /// `NarHash`, `NarSize` and `References`.
    #[must_use]
    pub(crate) fn describes_item_within(&self, len: usize) -> bool {
        let description = [
            Field::StorePath,
            Field::NarHash,
            Field::NarSize,
            Field::References,
        ];
        description
            .into_iter()
            .all(|field| self.scalars[field as usize].is_some_and(|span| span.end() <= len))
    }

    /// The oddities that the parser tolerated.
    #[must_use]
    pub fn quirks(&self) -> Quirks {
        self.quirks
    }

    /// Whether both describe the same item with the same content and references, in whatever order,
    /// so that the downloads of each can be used for the other.
    #[must_use]
    pub fn is_equivalent(&self, other: &Self) -> bool {
        self.store_path() == other.store_path()
            && self.nar_hash == other.nar_hash
            && self.nar_size == other.nar_size
            && self.has_same_references(other)
    }

    /// Whether the items of both refer to the same items, in whatever order.
    #[must_use]
    pub(crate) fn has_same_references(&self, other: &Self) -> bool {
        self.references().eq(other.references())
            || in_order(self.references()) == in_order(other.references())
    }

    pub(super) fn scalar(&self, field: Field) -> Option<&str> {
        self.scalars[field as usize].map(|span| span.of(&self.text))
    }
}

/// The set of `references` in the order of their names, in which narinfos usually have them.
pub(super) fn in_order<'a>(
    references: impl Iterator<Item = StorePathRef<'a>>,
) -> Vec<StorePathRef<'a>> {
    let mut references: Vec<StorePathRef<'a>> = references.collect();
    references.sort_unstable();
    references.dedup();
    references
}
