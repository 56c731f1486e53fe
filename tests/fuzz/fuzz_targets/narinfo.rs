//! Any text as a narinfo of either dialect: what parses prints to a text that parses to the
//! same, and no key vouches for it but by a real signature.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use subst::format::narinfo::NarInfo;
use subst::format::store_path::StoreDir;
use subst::trust::acl::{Acl, AuthorizedKeys};
use subst::trust::nix::TrustedKeys;
use subst::trust::verdict;

fuzz_target!(|text: &str| {
    let guix = (StoreDir::GUIX, AuthorizedKeys::Guix(Acl::official_guix_servers()));
    let nix = (StoreDir::NIX, AuthorizedKeys::Nix(TrustedKeys::official_nix_server()));
    for (dir, keys) in [guix, nix] {
        let dir = StoreDir::parse(dir).expect("a constant");
        let Ok(narinfo) = NarInfo::parse(text, &dir) else { continue };
        let printed = narinfo.to_string();
        let again = NarInfo::parse(&*printed, &dir).expect("what is printed parses");
        assert!(again.is_equivalent(&narinfo));
        assert_eq!(again.to_string(), printed);
        let narinfo = Arc::new(narinfo);
        let _ = verdict::authorize(Arc::clone(&narinfo), narinfo.store_path(), &keys, &dir);
    }
});
