//! Any text as a nix.conf: reading it ends, keys are on one line, and reading it again gives the same.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use subst::fuzzing::nix_conf_keys;

/// A file that the process itself may only change.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory can be created").keep();
    directory.join("nix.conf")
});

/// Whether the text includes only files beside the file: others may be devices.
fn stays_in_directory(text: &str) -> bool {
    !text.contains("include") || !text.contains(['/', '.'])
}

fuzz_target!(|text: &str| {
    if !stays_in_directory(text) {
        return;
    }
    std::fs::write(&*FILE, text).expect("the file can be written");
    let keys = nix_conf_keys(&FILE);
    assert!(!keys.as_deref().unwrap_or_default().contains('\n'));
    assert_eq!(nix_conf_keys(&FILE), keys);
});
