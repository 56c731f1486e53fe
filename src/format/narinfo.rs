//! Narinfos: what a substitute server *claims* of a store item.
//!
//! `Key: value` lines, in Guix's or Nix's dialect (the store directory says which). The text is
//! kept to the byte, because Guix signs the text itself; fields are spans of it. Lines end in
//! a newline, with or without a carriage return in front; a key begins with a letter or `%`,
//! a value begins behind the blanks that follow the colon. Unknown keys are ignored.
//!
//! A second `StorePath`, `NarHash`, `NarSize` or `References` is an error in Nix's dialect. In
//! Guix's the first of a repeated field counts, so that what stands below the signature can
//! never replace what stands above. A `URL` opens a download, the `Compression`, `FileSize`
//! and `FileHash` behind it describe that download; Guix writes one such group for each
//! compression. What else is tolerated is told by [`Quirks`].
//!
//! Checked here: `StorePath` is inside the store directory, `NarHash` and `NarSize` are there,
//! all names are well formed, the size of the text. **Not** checked: signatures, and whether
//! this is the item that was asked for; [`crate::trust`] does both. `URL`s are not looked at.

mod abridge;
mod fields;
mod offer;
mod parse;
mod print;
mod quirks;
#[cfg(test)]
mod tests;

use super::compression::{Compression, UnknownCompression};
use super::hash::{FileHash, HashError, HashForm, NarHash};
use super::store_path::{Dialect, StoreDir, StorePathError, StorePathRef, words};
use fields::Field;
pub use offer::NarOffer;
pub use quirks::Quirks;

/// The longest narinfo accepted; the largest real ones, of whole systems, have some 100 KiB.
pub const MAX_BYTES: usize = 1 << 20;

/// The word in front of a Guix signature. The signed text ends before its first occurrence,
/// wherever that is.
const SIGNATURE_MARK: &str = "Signature:";

/// Why a text is no narinfo. Everything quoted is escaped and cut: it comes from a stranger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// The text is longer than [`MAX_BYTES`].
    #[error("a narinfo of {0} bytes is too long")]
    TooLong(usize),
    /// A line is not `Key: value`: most likely this is no narinfo at all.
    #[error("line {number} is not a field: `{}`", .text.escape_debug())]
    Line {
        /// Counted from 1.
        number: usize,
        /// The beginning of the line.
        text: String,
    },
    /// A required field is missing.
    #[error("there is no {0} field")]
    Missing(&'static str),
    /// A field that must be unique is there twice.
    #[error("there is more than one {0} field")]
    Duplicate(&'static str),
    /// `StorePath` is not an item of the store directory in use.
    #[error("the StorePath field cannot be used")]
    StorePath(#[source] StorePathError),
    /// A reference is not the base name of a store item.
    #[error("the References field cannot be used")]
    Reference(#[source] StorePathError),
    /// `Deriver` is not the base name of a store item.
    #[error("the Deriver field cannot be used")]
    Deriver(#[source] StorePathError),
    /// `NarHash` is not a SHA-256 hash.
    #[error("the NarHash field cannot be used")]
    NarHash(#[source] HashError),
    /// `NarSize` is not a plain decimal number.
    #[error("NarSize is not a number of bytes: `{}`", .0.escape_debug())]
    NarSize(String),
}

/// One way to download the nar. Nobody vouches for any of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// How the nar is compressed; the unknown method has no name when Guix's dialect names none.
    pub compression: Result<Compression, UnknownCompression>,
    /// Bytes to download.
    pub file_size: Option<u64>,
    /// Hash of the bytes to download.
    pub file_hash: Option<FileHash>,
    file_hash_form: HashForm,
    url: Span,
}

/// What a server claims of a store item.
#[derive(Debug, Clone)]
pub struct NarInfo {
    text: Box<str>,
    dialect: Dialect,
    /// The first occurrence of each scalar field.
    scalars: Scalars,
    store_path: Span,
    nar_hash: NarHash,
    nar_hash_form: HashForm,
    nar_size: u64,
    references_len: u32,
    deriver: Option<Span>,
    downloads: Vec<Download>,
    nix_signatures: Vec<Span>,
    quirks: Quirks,
}

impl NarInfo {
    /// The narinfo that `text` is, for the store in `store_dir`.
    ///
    /// # Errors
    /// See [`NarInfoError`].
    pub fn parse(text: impl Into<Box<str>>, store_dir: &StoreDir) -> Result<Self, NarInfoError> {
        parse::parse(text.into(), store_dir)
    }

    /// The exact text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The item described.
    #[must_use]
    pub fn store_path(&self) -> StorePathRef<'_> {
        StorePathRef::from_checked(self.store_path.of(&self.text))
    }

    /// Hash of the nar, uncompressed.
    #[must_use]
    pub fn nar_hash(&self) -> NarHash {
        self.nar_hash
    }

    /// Bytes of the nar, uncompressed.
    #[must_use]
    pub fn nar_size(&self) -> u64 {
        self.nar_size
    }

    /// The items it refers to, in the order of the text; the item itself may be among them.
    pub fn references(&self) -> impl Iterator<Item = StorePathRef<'_>> + Clone {
        words(self.scalar(Field::References).unwrap_or("")).map(StorePathRef::from_checked)
    }

    /// How many references there are.
    #[must_use]
    pub fn references_len(&self) -> usize {
        self.references_len as usize
    }

    /// The derivation that built the item, if the server knows one.
    #[must_use]
    pub fn deriver(&self) -> Option<StorePathRef<'_>> {
        self.deriver
            .map(|span| StorePathRef::from_checked(span.of(&self.text)))
    }

    /// The kind of machine it was built for.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.scalar(Field::System)
    }

    /// How the item's name follows from its content (Nix).
    #[must_use]
    pub fn ca(&self) -> Option<&str> {
        self.scalar(Field::Ca)
    }

    /// Where the nar can be had, in the order of the text.
    #[must_use]
    pub fn downloads(&self) -> &[Download] {
        &self.downloads
    }

    /// The `URL` of one of this narinfo's own [`downloads`](Self::downloads): relative to the
    /// server's address or absolute, and chosen by whoever sent the text.
    #[must_use]
    pub fn download_url(&self, download: &Download) -> &str {
        download.url.of(&self.text)
    }

    /// The value of the first `Signature` field (Guix).
    #[must_use]
    pub fn guix_signature(&self) -> Option<&str> {
        self.scalar(Field::Signature)
    }

    /// The values of all `Sig` fields (Nix).
    pub fn nix_signatures(&self) -> impl Iterator<Item = &str> {
        self.nix_signatures.iter().map(|span| span.of(&self.text))
    }

    /// What a Guix signature covers: all before the first `Signature:`, wherever that stands.
    #[must_use]
    pub fn signed_text(&self) -> Option<&str> {
        let end = memchr::memmem::find(self.text.as_bytes(), SIGNATURE_MARK.as_bytes())?;
        Some(&self.text[..end])
    }

    /// Whether every field that may be believed once the first `len` bytes are vouched for is
    /// inside them: `StorePath`, `NarHash`, `NarSize` and `References`.
    #[must_use]
    pub fn describes_item_within(&self, len: usize) -> bool {
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

    /// The oddities that were tolerated.
    #[must_use]
    pub fn quirks(&self) -> Quirks {
        self.quirks
    }

    /// Whether both describe the same item with the same content: then a download that one of
    /// them offers can be used for the other.
    #[must_use]
    pub fn is_equivalent(&self, other: &Self) -> bool {
        self.store_path() == other.store_path()
            && self.nar_hash == other.nar_hash
            && self.nar_size == other.nar_size
            && self.references_len == other.references_len
            && self.references().eq(other.references())
    }

    fn scalar(&self, field: Field) -> Option<&str> {
        self.scalars[field as usize].map(|span| span.of(&self.text))
    }
}

type Scalars = [Option<Span>; Field::SCALARS];

/// A piece of the text. Two times four bytes, since a narinfo has at most [`MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        let small = |offset| u32::try_from(offset).expect("a narinfo is at most MAX_BYTES long");
        Self {
            start: small(start),
            end: small(end),
        }
    }

    fn of(self, text: &str) -> &str {
        &text[self.start as usize..self.end as usize]
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    fn end(self) -> usize {
        self.end as usize
    }
}
