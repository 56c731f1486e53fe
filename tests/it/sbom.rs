//! `packaging/build-sbom` lists what the program is made of, and prints the same each time.
//!
//! Not checked here: the schema of CycloneDX. It has more fields than the script uses.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::support::repository;

/// What the script prints for the platform of this test, whose crates have been downloaded; none
/// where it cannot run.
fn printed() -> Option<String> {
    let is_there = Command::new("python3")
        .args(["-c", "import tomllib"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!("skipped: it needs Python 3.11 or later");
        return None;
    }
    let printed = Command::new("packaging/build-sbom")
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .env("CARGO", env!("CARGO"))
        .current_dir(repository())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "{message}");
    Some(String::from_utf8(printed.stdout).unwrap())
}

fn bill() -> Option<Value> {
    Some(serde_json::from_str(&printed()?).unwrap())
}

/// Name, version and checksum of each crate of `Cargo.lock`.
fn locked() -> BTreeSet<(String, String, String)> {
    let text = std::fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    let lock: toml::Table = toml::from_str(&text).unwrap();
    let packages = lock["package"].as_array().unwrap();
    packages
        .iter()
        .filter_map(|package| {
            let text = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
            Some((text("name")?, text("version")?, text("checksum")?))
        })
        .collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{value} has no {key}"))
}

#[test]
fn sbom_lists_every_dependency_with_checksum_and_license() {
    let Some(bill) = bill() else { return };

    assert_eq!(text(&bill, "bomFormat"), "CycloneDX");
    assert_eq!(text(&bill, "specVersion"), "1.5");
    assert_eq!(text(&bill["metadata"], "timestamp"), "2023-11-14T22:13:20Z");
    let program = &bill["metadata"]["component"];
    assert_eq!(text(program, "name"), "subst");
    assert_eq!(text(program, "version"), env!("CARGO_PKG_VERSION"));

    let locked = locked();
    let mut scopes = BTreeMap::new();
    for component in bill["components"].as_array().unwrap() {
        let (name, version) = (text(component, "name"), text(component, "version"));
        scopes.insert(name, text(component, "scope"));
        assert!(component["licenses"][0].is_object(), "{component}");
        if text(component, "purl").starts_with("pkg:cargo/") {
            let checksum = text(&component["hashes"][0], "content");
            let crate_of_lock = (name.to_owned(), version.to_owned(), checksum.to_owned());
            assert!(locked.contains(&crate_of_lock), "{component}");
        }
    }

    for linked in ["rustls", "ring", "libc", "serde", "sqlite", "zstd", "xz"] {
        assert_eq!(scopes.get(linked), Some(&"required"), "{linked}");
    }
    for only_for_building in ["cc", "syn", "clap_derive"] {
        let scope = scopes.get(only_for_building);
        assert_eq!(scope, Some(&"excluded"), "{only_for_building}");
    }
    for only_for_tests in ["proptest", "tempfile", "divan", "rcgen"] {
        assert_eq!(scopes.get(only_for_tests), None, "{only_for_tests}");
    }
}

#[test]
fn sbom_connects_all_components_to_the_program() {
    let Some(bill) = bill() else { return };
    let components = bill["components"].as_array().unwrap();
    let mut unreached: BTreeSet<&str> = components.iter().map(|c| text(c, "bom-ref")).collect();
    assert_eq!(unreached.len(), components.len(), "two have the same name");

    let dependencies = bill["dependencies"].as_array().unwrap();
    let needed_by: BTreeMap<&str, &Value> = dependencies
        .iter()
        .map(|entry| (text(entry, "ref"), &entry["dependsOn"]))
        .collect();
    let mut next = vec![text(&bill["metadata"]["component"], "bom-ref")];
    while let Some(reference) = next.pop() {
        for needed in needed_by[reference].as_array().unwrap() {
            let needed = needed.as_str().unwrap();
            if unreached.remove(needed) {
                next.push(needed);
            } else {
                assert!(needed_by.contains_key(needed), "{needed} is not listed");
            }
        }
    }
    assert!(unreached.is_empty(), "{unreached:?}");
}

#[test]
fn sbom_is_the_same_each_time() {
    let Some(first) = printed() else { return };
    assert_eq!(printed(), Some(first));
}
