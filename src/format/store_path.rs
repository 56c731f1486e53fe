//! Store paths: the parsed names of store items, and the directory they live in.
//!
//! A store path is `HASH-NAME`: 32 nix-base32 characters, a dash, and a name of 1 to 211
//! characters out of `0-9 a-z A-Z + - . _ ? =`. In a store of Guix it does not begin with a dot. Nix
//! only refuses `.` and `..`, alone or before the first dash; [`StorePath::parse`], which knows no
//! store, follows Nix. The store directory is not part of it: [`StoreDir`] is data that parses and
//! displays full names, so that one program serves `/gnu/store` and `/nix/store`.

mod dir;
mod error;
mod list;
mod path;
#[cfg(test)]
mod tests;

pub use dir::{Dialect, StoreDir};
pub use error::{STORE_DIR_BYTES_MAX, StorePathError};
pub(super) use list::{parse_list, split_blanks};
pub use path::{HASH_PART_LEN, HashPart, NAME_MAX, StorePath, StorePathRef};
