//! Lists the entries of a nar: `read_nar [NAR_FILE]`; without a file, of the nar on standard input.
//!
//! The nar is read as a stream, so its size does not matter. Its hash is not verified: that takes an
//! authorized narinfo, as in the example `verify_narinfo`.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use subst::format::nar::{EntryName, NarEvent, NarReader};
use subst::format::store_path::Dialect;

fn main() -> Result<(), Box<dyn Error>> {
    let input: Box<dyn Read> = match std::env::args_os().nth(1) {
        Some(file) => Box::new(File::open(file)?),
        None => Box::new(std::io::stdin()),
    };

    let mut reader = NarReader::new(BufReader::new(input), Dialect::Guix);
    let mut output = std::io::stdout();
    let mut directory = PathBuf::from(".");
    while let Some(event) = reader.next()? {
        match event {
            NarEvent::Directory { name } => {
                directory.extend(name.as_ref().map(EntryName::as_os_str));
                writeln!(output, "directory {}", directory.display())?;
            }
            NarEvent::DirectoryEnd => {
                directory.pop();
            }
            // `reader.contents()` would read the bytes; the next call of `next` skips them.
            NarEvent::File { name, size, .. } => {
                let path = path(&directory, name);
                writeln!(output, "file {}, {size} bytes", path.display())?;
            }
            NarEvent::Symlink { name, target } => {
                let (path, target) = (path(&directory, name), target.as_os_str().display());
                writeln!(output, "symlink {} -> {target}", path.display())?;
            }
        }
    }
    Ok(())
}

/// The path of an entry; only the top of the nar has no name.
fn path(directory: &Path, name: Option<EntryName>) -> PathBuf {
    name.map_or_else(
        || directory.to_owned(),
        |name| directory.join(name.as_os_str()),
    )
}
