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
mod download;
mod error;
mod fact;
mod fields;
mod info;
mod limits;
mod offer;
mod parse;
mod print;
mod quirks;
mod span;
#[cfg(test)]
mod tests;

pub use download::Download;
pub use error::NarInfoError;
pub(crate) use fact::NarFact;
pub use info::NarInfo;
pub use limits::MAX_BYTES;
pub(crate) use offer::NarOffer;
pub use quirks::Quirks;
