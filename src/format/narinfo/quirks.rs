//! Oddities of real narinfos that the parser tolerates, as flags.

use bitflags::bitflags;

bitflags! {
    /// The oddities of a narinfo.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Quirks: u16 {
        /// Lines end in carriage return and newline.
        const CRLF = 1 << 0;
        /// An unknown field.
        const UNKNOWN_FIELD = 1 << 1;
        /// The last line does not end in a newline.
        const NO_FINAL_NEWLINE = 1 << 2;
        /// `Compression` is missing or empty, which means bzip2 in Nix's dialect.
        const DEFAULTED_COMPRESSION = 1 << 3;
        /// There is no `References` line.
        const NO_REFERENCES_LINE = 1 << 4;
        /// References are not in increasing order, or one is repeated.
        const UNSORTED_REFERENCES = 1 << 5;
        /// A hash is not spelled in nix-base32.
        const HASH_FORM = 1 << 6;
        /// `Deriver` says `unknown-deriver`.
        const UNKNOWN_DERIVER = 1 << 7;
        /// A field occurs more often than it should; the first one counts.
        const DUPLICATE_FIELD = 1 << 8;
        /// A `FileSize` or `FileHash` cannot be read and is ignored.
        const UNREADABLE_FILE_FIELD = 1 << 9;
        /// A line is empty.
        const EMPTY_LINE = 1 << 10;
        /// `Deriver` is not the base name of a store item and is ignored.
        const UNREADABLE_DERIVER = 1 << 11;
    }
}
