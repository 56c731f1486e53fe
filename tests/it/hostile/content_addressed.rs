//! Items of Nix without a signature: accepted when the store path proves the content, and refused
//! whatever else the server sends.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use subst::format::hash::NarHash;
use subst::format::nar::NarWriter;

use crate::support::listing::names;
use crate::support::sandbox::run;
use crate::support::{Kind, Sandbox};

/// `builtins.toFile "foo" "bar"`, and `toFile "baz"` of that name.
const FOO: &str = "vxjiwkjkn7x4079qvh1jkl5pn05j2aw0-foo";
const BAZ: &str = "5xd714cbfnkz02h2vbsj4fm03x3f15nf-baz";

fn nar_of(contents: &[u8], is_executable: bool) -> Vec<u8> {
    let mut writer = NarWriter::new(Vec::new());
    let size = contents.len() as u64;
    writer.file(None, is_executable, size, contents).unwrap();
    writer.finish().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    NarHash::from_bytes(Sha256::digest(bytes).into()).to_string()
}

/// Adds the unsigned narinfo of `base` to the server in `dir`, with `nar`.
fn publish(dir: &Path, base: &str, nar: &[u8], references: &str, address: &str) {
    publish_with_size(dir, base, nar, nar.len() as u64, references, address);
}

/// The same with a narinfo that says that the nar has `nar_size` bytes.
fn publish_with_size(
    dir: &Path,
    base: &str,
    nar: &[u8],
    nar_size: u64,
    references: &str,
    address: &str,
) {
    std::fs::create_dir_all(dir.join("nar")).unwrap();
    std::fs::write(dir.join("nar").join(base), nar).unwrap();
    let text = format!(
        "StorePath: /nix/store/{base}\nURL: nar/{base}\nCompression: none\nNarHash: {}\n\
         NarSize: {nar_size}\nReferences: {references}\nCA: {address}\n",
        sha256(nar)
    );
    std::fs::write(dir.join(format!("{}.narinfo", &base[..32])), text).unwrap();
}

fn fetch(sandbox: &Sandbox, base: &str) -> crate::support::sandbox::Run {
    let url = format!("file://{}", sandbox.path("server").display());
    let path = format!("/nix/store/{base}");
    run(sandbox.command(Kind::NixXz, &url, &["fetch", &path]))
}

#[test]
fn files_that_their_names_prove_are_fetched_without_a_signature() {
    let sandbox = Sandbox::new();
    let server = sandbox.path("server");
    let text = format!("/nix/store/{FOO}");
    let address = format!("text:{}", sha256(b"bar"));
    publish(&server, FOO, &nar_of(b"bar", false), "", &address);
    let address = format!("text:{}", sha256(text.as_bytes()));
    publish(&server, BAZ, &nar_of(text.as_bytes(), false), FOO, &address);

    fetch(&sandbox, BAZ).exits(0);
    let store = sandbox.root().join("nix/store");
    assert_eq!(std::fs::read(store.join(FOO)).unwrap(), b"bar");
    assert_eq!(std::fs::read(store.join(BAZ)).unwrap(), text.as_bytes());

    let url = format!("file://{}", server.display());
    let arguments = ["query", "--json", &text];
    let json = run(sandbox.command(Kind::NixXz, &url, &arguments)).exits(0);
    let signer = r#""signed_by":"content-addressed""#;
    assert!(
        json.stdout.replace(' ', "").contains(signer),
        "{}",
        json.stdout
    );
}

#[test]
fn content_that_the_name_does_not_prove_is_refused() {
    let address = format!("text:{}", sha256(b"bar"));
    let other_address = format!("text:{}", sha256(b"baz"));
    let flat_address = format!("fixed:{}", sha256(b"bar"));
    let mut directory = NarWriter::new(Vec::new());
    directory.directory(None).unwrap();
    directory.end_directory().unwrap();
    for (nar, references, address, words) in [
        (nar_of(b"baz", false), "", &address, "content address"),
        (nar_of(b"bar", true), "", &address, "content address"),
        (directory.finish().unwrap(), "", &address, "content address"),
        (nar_of(b"baz", false), "", &other_address, "not signed"),
        (nar_of(b"bar", false), BAZ, &address, "not signed"),
        (nar_of(b"bar", false), "", &flat_address, "not signed"),
    ] {
        let sandbox = Sandbox::new();
        publish(&sandbox.path("server"), FOO, &nar, references, address);
        fetch(&sandbox, FOO).exits(3).says(words);
        let store = sandbox.root().join("nix/store");
        assert!(!store.join(FOO).exists(), "{address} {references}");
        let left: Vec<_> = names(&store);
        assert!(left.iter().all(|name| name == ".links"), "{left:?}");
    }
}

/// A size that no signature covers is no reason to refuse the closure: the next server is used.
#[test]
fn a_false_size_of_an_unsigned_item_is_the_servers_fault() {
    let sandbox = Sandbox::new();
    let servers = ["false", "true"].map(|name| sandbox.path(name));
    let foo_path = format!("/nix/store/{FOO}");
    let foo_address = format!("text:{}", sha256(b"bar"));
    let baz_address = format!("text:{}", sha256(foo_path.as_bytes()));
    let (foo, baz) = (nar_of(b"bar", false), nar_of(foo_path.as_bytes(), false));
    let sizes = [1 << 62, foo.len() as u64];
    for (server, size) in servers.iter().zip(sizes) {
        publish_with_size(server, FOO, &foo, size, "", &foo_address);
        publish(server, BAZ, &baz, FOO, &baz_address);
    }

    let [false_url, true_url] = servers.map(|server| format!("file://{}", server.display()));
    let baz_path = format!("/nix/store/{BAZ}");
    run(sandbox.command(Kind::NixXz, &false_url, &["fetch", &baz_path]))
        .exits(3)
        .says("no signature covers");
    let urls = format!("{false_url} {true_url}");
    run(sandbox.command(Kind::NixXz, &urls, &["fetch", &baz_path])).exits(0);
    let store = sandbox.root().join("nix/store");
    assert_eq!(std::fs::read(store.join(FOO)).unwrap(), b"bar");
    assert_eq!(std::fs::read(store.join(BAZ)).unwrap(), foo_path.as_bytes());

    let output = sandbox.path("output");
    let arguments = ["fetch", "--output", output.to_str().unwrap(), &foo_path];
    run(sandbox.command(Kind::NixXz, &urls, &arguments)).exits(0);
    assert_eq!(std::fs::read(output).unwrap(), b"bar");
}
