//! Any bytes as an ACL, as a Guix key and as a list of Nix keys: what is read prints to a text with the same
//! keys, and a key that was authorized is in the ACL, once.

#![no_main]

use libfuzzer_sys::fuzz_target;
use subst::trust::acl::Acl;
use subst::trust::guix::PublicKey;
use subst::trust::nix::TrustedKeys;

fn check_acl(acl: &Acl) {
    let again = Acl::parse(acl.to_string().as_bytes()).expect("what is printed parses");
    let ids = |acl: &Acl| acl.keys().map(|key| key.id().to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(acl));
    for key in acl.keys() {
        assert!(acl.contains(key.as_sexp()));
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(acl) = Acl::parse(bytes) {
        check_acl(&acl);
    }

    if let Ok(key) = PublicKey::parse(bytes) {
        let mut acl = Acl::official_guix_servers();
        let is_official = acl.contains(key.as_sexp());
        assert_eq!(acl.authorize(key.clone()), !is_official);
        assert!(!acl.authorize(key.clone()));
        assert!(acl.contains(key.as_sexp()));
        check_acl(&acl);
    }

    let keys = std::str::from_utf8(bytes).ok().and_then(|text| TrustedKeys::parse(text).ok());
    if let Some(keys) = keys {
        let ids: Vec<String> = keys.iter().map(|key| key.id().to_string()).collect();
        let again = TrustedKeys::parse(&ids.join(" ")).expect("ids are keys");
        assert!(again.iter().map(|key| &**key.id()).eq(ids.iter().map(String::as_str)));
    }
});
