//! Why a text is not a store path or a store directory.

/// The longest name of a store directory, in bytes.
pub const STORE_DIR_BYTES_MAX: usize = 255;

/// Why a text is not a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// The name is not directly inside the store directory.
    #[error("`{}` is not directly inside {store_dir}", .path.escape_debug())]
    NotInStore {
        /// What was given.
        path: String,
        /// The store directory in use.
        store_dir: String,
    },
    /// The text does not begin with 32 nix-base32 characters and a dash.
    #[error(
        "`{}` does not begin with a hash part of 32 nix-base32 characters and a dash",
        .0.escape_debug()
    )]
    HashPart(String),
    /// The name is empty, too long, or has a character or a leading dot that is not allowed in
    /// store names.
    #[error("`{}` has no valid name after its hash part", .0.escape_debug())]
    Name(String),
    /// The store directory is not an absolute, normal path.
    #[error(
        "`{}` is not a valid store directory: it has to be an absolute path of at most {STORE_DIR_BYTES_MAX} bytes without `.`, `..` and final `/`",
        .0.escape_debug()
    )]
    StoreDir(String),
}
