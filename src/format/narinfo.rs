//! Narinfos: a substitute server's description of a store item, not yet verified.
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
//! compression. [`Quirks`] lists what else is tolerated.
//!
//! Checked here: `StorePath` is inside the store directory, `NarHash` and `NarSize` are present,
//! all names are well formed, the size of the text. **Not** checked: signatures, and whether
//! this is the requested item; [`crate::trust`] checks both. `URL`s are not checked either.

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
use super::store_path::{Dialect, StoreDir, StorePathError, StorePathRef, split_blanks};
use fields::Field;
pub(crate) use offer::NarOffer;
pub use quirks::Quirks;

/// The longest accepted narinfo, in bytes; the largest real ones, of whole systems, have about
/// 100 KiB.
pub const MAX_BYTES: usize = 1 << 20;

/// The key of a Guix signature. The signed text ends before its first occurrence, wherever that
/// is.
const SIGNATURE_MARK: &str = "Signature:";

/// Why a text is not a narinfo. Quoted text is escaped and cut: it is untrusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// The text is longer than [`MAX_BYTES`].
    #[error("a narinfo of {0} bytes is too long")]
    TooLong(usize),
    /// A line is not `Key: value`: most likely this is not a narinfo at all.
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
    /// A field that must be unique occurs twice.
    #[error("there is more than one {0} field")]
    Duplicate(&'static str),
    /// `StorePath` is not an item of the store directory in use.
    #[error("the StorePath field is invalid")]
    StorePath(#[source] StorePathError),
    /// A reference is not the base name of a store item.
    #[error("the References field is invalid")]
    Reference(#[source] StorePathError),
    /// `Deriver` is not the base name of a store item.
    #[error("the Deriver field is invalid")]
    Deriver(#[source] StorePathError),
    /// `NarHash` is not a SHA-256 hash.
    #[error("the NarHash field is invalid")]
    NarHash(#[source] HashError),
    /// `NarSize` is not a plain decimal number.
    #[error("NarSize is not a number of bytes: `{}`", .0.escape_debug())]
    NarSize(String),
}

/// One way to download the nar. No signature covers any of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// How the nar is compressed; an unknown method with an empty name if Guix's dialect names
    /// none.
    pub compression: Result<Compression, UnknownCompression>,
    /// The size of the compressed file in bytes, if given.
    pub file_size: Option<u64>,
    /// The hash of the compressed file, if given.
    pub file_hash: Option<FileHash>,
    file_hash_form: HashForm,
    url: Span,
}

/// A server's description of a store item: claims, until [`crate::trust::verdict::authorize`] has
/// verified a signature.
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
    /// Parses the narinfo `text` for the store in `store_dir`, which determines the dialect.
    ///
    /// # Errors
    /// See [`NarInfoError`].
    pub fn parse(text: impl Into<Box<str>>, store_dir: &StoreDir) -> Result<Self, NarInfoError> {
        parse::parse(text.into(), store_dir)
    }

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

    /// The value of the first `Signature` field (Guix).
    #[must_use]
    pub fn guix_signature(&self) -> Option<&str> {
        self.scalar(Field::Signature)
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

    /// Whether both describe the same item with the same content and references, so that the
    /// downloads of each can be used for the other.
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
        Self {
            start: Self::offset(start),
            end: Self::offset(end),
        }
    }

    fn offset(offset: usize) -> u32 {
        u32::try_from(offset).expect("a narinfo is at most MAX_BYTES long")
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
