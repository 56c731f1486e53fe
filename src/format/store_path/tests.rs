//! Store paths, store directories and lists of both, good and hostile.

use super::*;

const BASE: &str = "0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0";

#[test]
fn parses_and_displays_with_a_store_dir() {
    let dir = StoreDir::parse("/gnu/store").unwrap();
    let full = format!("/gnu/store/{BASE}");
    let path = dir.parse_path(&full).unwrap();
    assert_eq!(path.name(), "debconf-1.0");
    assert_eq!(path.hash_part().as_str(), &BASE[..32]);
    assert_eq!(dir.display(path).to_string(), full);
    assert_eq!(dir.full_name(&path.to_path()), full);
}

#[test]
fn refuses_paths_outside_the_store() {
    let dir = StoreDir::parse("/gnu/store").unwrap();
    for path in [
        format!("/nix/store/{BASE}"),
        format!("/gnu/store{BASE}"),
        format!("/gnu/store//{BASE}"),
        BASE.to_owned(),
    ] {
        assert!(dir.parse_path(&path).is_err(), "{path}");
    }
}

#[test]
fn refuses_hostile_base_names() {
    let hash = &BASE[..32];
    for base in [
        "",
        "-",
        hash,
        &format!("{hash}-"),
        &format!("{hash}-."),
        &format!("{hash}-..-a"),
        &format!("{hash}-a/b"),
        &format!("{hash}-a b"),
        &format!("{hash}-a\0"),
        &format!("{hash}-é"),
        &format!("{hash}_a"),
        &format!("e{}-a", &hash[1..]),
        &format!("{hash}-{}", "a".repeat(NAME_MAX + 1)),
    ] {
        assert!(StorePath::parse(base).is_err(), "{base}");
    }
    assert!(StorePath::parse(&format!("{hash}-{}", "a".repeat(NAME_MAX))).is_ok());
}

#[test]
fn every_byte_of_a_list_is_looked_at() {
    for byte in 0..=127 {
        let name = format!("{BASE}-{}", char::from(byte));
        let alone = StorePath::parse(&name).is_ok();
        // In front of others and behind them, and where many bytes are looked at at once.
        for list in [
            name.clone(),
            format!("{name} {BASE}"),
            format!("{BASE}\t{BASE}  {name} "),
        ] {
            let all_good = parse_list(&list, Dialect::Guix).all(|path| path.is_ok());
            assert_eq!(
                all_good,
                alone || byte == b' ' || byte == b'\t',
                "{byte} in {list:?}"
            );
        }
    }
    assert!(parse_list(&format!("{BASE} {BASE}é"), Dialect::Guix).any(|path| path.is_err()));
}

#[test]
fn refuses_odd_store_dirs() {
    for dir in [
        "",
        "/",
        "gnu/store",
        "/gnu/store/",
        "/gnu/../store",
        "/gnu//store",
    ] {
        assert!(StoreDir::parse(dir).is_err(), "{dir}");
    }

    let longest = format!("/{}", "x".repeat(STORE_DIR_BYTES_MAX - 1));
    assert!(StoreDir::parse(&longest).is_ok());
    let error = StoreDir::parse(&longest.repeat(1000)).unwrap_err();
    assert!(error.to_string().len() < 2 * STORE_DIR_BYTES_MAX);
}
