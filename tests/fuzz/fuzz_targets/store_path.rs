//! Any text as a store directory and a path in it: what is accepted is one name in the store, and
//! prints as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use subst::format::store_path::{HashPart, StoreDir, StorePath};

fuzz_target!(|text: &str| {
    if let Ok(path) = StorePath::parse(text) {
        assert_eq!(path.base(), text);
        assert!(!text.contains(['/', '\0', '\n', ' ']) && text != "." && text != "..");
        assert_eq!(HashPart::parse(path.hash_part().as_str()).ok(), Some(path.hash_part()));
        assert!(text.ends_with(path.name()));
    }

    for dir in [StoreDir::GUIX, StoreDir::NIX] {
        let dir = StoreDir::parse(dir).expect("a constant");
        if let Ok(path) = dir.parse_path(text) {
            assert_eq!(dir.full_name(path), text);
            assert_eq!(path.to_path().as_ref(), path);
        }
    }

    if let Ok(dir) = StoreDir::parse(text) {
        assert!(dir.as_str().starts_with('/') && !dir.as_str().contains("/../"));
        assert_eq!(StoreDir::parse(dir.as_str()).as_ref(), Ok(&dir));
    }
});
