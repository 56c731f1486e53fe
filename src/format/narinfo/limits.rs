//! How much of a narinfo is read and kept, whatever a server sends.

/// The longest accepted narinfo, in bytes; the largest real ones, of whole systems, have about
/// 100 KiB. It limits the references as well, all of which a signature covers.
pub const MAX_BYTES: usize = 1 << 20;

/// At most this many `Sig` fields are read, since each may take a verification.
pub(super) const SIGNATURES_MAX: usize = 64;
/// At most this many `Sig` fields are kept, and this many `Signature` fields considered.
pub(super) const SIGNATURES_KEPT_MAX: usize = 16;
/// Longer values of `System`, `CA` and `Sig` are not kept: no valid value is that long.
pub(super) const VALUE_BYTES_MAX: usize = 256;
/// A longer value of a `Signature` field behind the first one is not kept: real ones have 900 bytes.
pub(super) const GUIX_SIGNATURE_BYTES_MAX: usize = 4 << 10;

/// At most this many downloads of a narinfo are considered.
pub(super) const DOWNLOADS_MAX: usize = 32;
/// At most this many bytes of URLs are kept of a narinfo; a URL that does not fit is left out.
pub(super) const URLS_BYTES_MAX: usize = 4 << 10;
/// No compression method has a name of more bytes.
pub(super) const METHOD_BYTES_MAX: usize = 64;

/// No valid value without blanks is longer: the rest is cut off before parsing.
pub(super) const WORD_BYTES_MAX: usize = 256;
/// How many bytes of a line an error quotes.
pub(super) const QUOTED_BYTES_MAX: usize = 80;
/// A text of at most this length is kept in the lookup cache unchanged.
pub(super) const WHOLE_BYTES_MAX: usize = 8 << 10;
