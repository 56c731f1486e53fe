//! Any bytes as an s-expression, a key and an ACL: what parses prints to a text that parses to
//! the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use subst::format::sexp::Sexp;
use subst::trust::acl::Acl;
use subst::trust::guix::PublicKey;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = Sexp::parse(bytes) else { return };
    assert_eq!(Sexp::parse(value.to_string().as_bytes()).as_ref(), Ok(&value));
    assert_eq!(Sexp::parse(&value.to_canonical()).as_ref(), Ok(&value));
    if let Ok(key) = PublicKey::parse(bytes) {
        assert_eq!(key.as_sexp(), &value);
    }
    if let Ok(acl) = Acl::parse(bytes) {
        assert_eq!(Sexp::parse(acl.to_string().as_bytes()), Ok(value));
    }
});
