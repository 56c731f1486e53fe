//! Any bytes as a nar that is unpacked into a directory: nothing is made outside of the tree, what is
//! accepted dumps back to the same bytes, and what is refused leaves nothing.

#![no_main]

use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use subst::format::nar::{EntryName, NarWriter, SymlinkTarget};
use subst::fuzzing::unpack_tree;

/// A directory with nothing but an empty directory `inside`.
static OUTSIDE: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory can be created").keep();
    std::fs::create_dir(directory.join("inside")).expect("a directory can be created");
    directory
});

/// The names in `directory`, sorted.
fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = directory.read_dir().expect("the directory can be read");
    let mut names: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry").file_name().into()).collect();
    names.sort();
    names
}

fn dump(path: &Path, name: Option<&EntryName>, nar: &mut NarWriter<Vec<u8>>) {
    let metadata: Metadata = path.symlink_metadata().expect("it is there");
    if metadata.is_symlink() {
        let target = path.read_link().expect("a symlink");
        let target = SymlinkTarget::new(target.as_os_str().as_bytes()).expect("it was in a nar");
        nar.symlink(name, &target).expect("memory");
    } else if metadata.is_dir() {
        nar.directory(name).expect("memory");
        for child in names(path) {
            let name = EntryName::new(child.as_os_str().as_bytes()).expect("it was in a nar");
            dump(&path.join(&child), Some(&name), nar);
        }
        nar.end_directory().expect("memory");
    } else {
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let contents = File::open(path).expect("it can be read");
        nar.file(name, executable, metadata.len(), contents).expect("memory");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let inside = OUTSIDE.join("inside");
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let unpacked = unpack_tree(bytes, &inside, sum % 2 == 0);

    assert_eq!(names(&OUTSIDE), [Path::new("inside")]);
    let new = |name: &PathBuf| name != Path::new(".links");
    if let Some(unpacked) = unpacked {
        let made: Vec<PathBuf> = names(&inside).into_iter().filter(new).collect();
        assert_eq!(made, [Path::new("tree")]);
        let mut nar = NarWriter::new(Vec::new());
        dump(&inside.join("tree"), None, &mut nar);
        assert_eq!(nar.finish().expect("it is whole"), bytes);
        drop(unpacked);
    }
    assert_eq!(names(&inside).into_iter().filter(new).count(), 0);
});
