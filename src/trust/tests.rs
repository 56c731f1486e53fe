//! A corpus of real narinfos from cache.nixos.org, named by the environment: a zstd file with
//! an empty line between narinfos. Too large for the repository, so skipped without it.

use super::nix::{self, TrustedKeys};
use super::signer::SignatureScope;
use crate::format::narinfo::NarInfo;
use crate::format::store_path::StoreDir;

const CORPUS: &str = "SUBST_NARINFO_CORPUS";

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the corpus is not part of the repository"
)]
fn real_narinfos_parse_print_and_verify() {
    let Some(path) = std::env::var_os(CORPUS) else {
        println!("skipped: {CORPUS} does not name a file of narinfos");
        return;
    };
    let text = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    let dir = StoreDir::parse(StoreDir::NIX).unwrap();
    let official = TrustedKeys::official_nix_server();
    let name = format!("{}:", official.iter().next().unwrap().name());
    let (mut parsed, mut verified) = (0, 0);
    for text in text.split("\n\n").filter(|text| !text.trim().is_empty()) {
        let text = format!("{}\n", text.trim_matches('\n'));
        let narinfo =
            NarInfo::parse(&*text, &dir).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(narinfo.to_string(), text);
        parsed += 1;
        if narinfo
            .nix_signatures()
            .any(|signature| signature.starts_with(&name))
        {
            let checked = nix::check(&narinfo, &official, &dir, SignatureScope::First);
            checked.unwrap_or_else(|why| panic!("{why}\n{text}"));
            verified += 1;
        }
    }
    println!("{parsed} narinfos printed back byte for byte, {verified} of them verified");
    assert!(parsed > 0 && verified > 0, "the corpus is empty");
}
