//! The file with the key that signs: only its owner may read it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::cli::error::CliError;
use crate::format::store_path::Dialect;
use crate::substitute::endorse::EndorsementKey;

/// The longest file that is read: real ones have 300 bytes.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// Reads the secret key in `path`, for stores of `dialect`.
///
/// # Errors
/// The file cannot be read, other users may read or replace it, or it has no such key.
pub(super) fn read(path: &Path, dialect: Dialect) -> Result<EndorsementKey, CliError> {
    let file = File::open(path).map_err(CliError::file("read", path))?;
    let found = file.metadata().map_err(CliError::file("read", path))?;
    let mode = found.permissions().mode() & 0o7777;
    let user = rustix::process::geteuid().as_raw();
    let is_own = found.uid() == user || found.uid() == 0;
    if !is_own || mode & 0o077 != 0 {
        return Err(CliError::ExposedKey {
            path: path.to_owned(),
            mode,
            owner: found.uid(),
        });
    }

    let mut text = String::new();
    file.take(KEY_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(CliError::file("read", path))?;
    EndorsementKey::parse(&text, dialect).map_err(|source| CliError::Key {
        what: format!("{} has no key that can sign", path.display()),
        source: Box::new(source),
    })
}
