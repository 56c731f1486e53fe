//! The programs in `examples/`, run on the fixtures.

use std::path::PathBuf;
use std::process::Command;

use crate::support::sandbox::run;
use crate::support::{Kind, Sandbox, item, repository};

/// An example that cargo built beside the program. `None`: it was not built, as by
/// `cargo test --test it`; `cargo test` builds all of them.
fn example(name: &str) -> Option<Command> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_subst"));
    let example = program.parent().unwrap().join("examples").join(name);
    if !example.exists() {
        eprintln!("left out: {} was not built", example.display());
        return None;
    }

    let mut command = Command::new(example);
    command.env_clear();
    Some(command)
}

#[test]
fn an_example_verifies_a_narinfo() {
    let signatures = repository().join("fixtures/signatures");
    let item = "/gnu/store/0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0";
    for (key, code) in [("vector-a.pub", 0), ("vector-b.pub", 1)] {
        let Some(mut command) = example("verify_narinfo") else {
            return;
        };
        command.arg(item).arg(signatures.join("vector-a.narinfo"));
        command.arg(signatures.join(key));
        let ended = run(command).exits(code);
        assert_eq!(ended.stdout.ends_with(" 288640\n"), code == 0, "{ended:?}");
    }
}

#[test]
fn an_example_lists_a_nar() {
    let Some(mut command) = example("read_nar") else {
        return;
    };
    command.arg(repository().join("fixtures/nar/tree.nar"));
    let ended = run(command).exits(0);
    for kind in ["directory ./", "file ./", "symlink ./"] {
        assert!(ended.stdout.contains(kind), "{}", ended.stdout);
    }
}

#[test]
fn an_example_fetches_an_item() {
    let sandbox = Sandbox::new();
    let Some(mut command) = example("look_up_and_fetch") else {
        return;
    };
    command
        .arg(sandbox.root())
        .arg(Kind::Guix.url())
        .arg(sandbox.path("acl"))
        .arg(item("sample"))
        .env("HOME", sandbox.path("home"))
        .env("SUBST_CONFIG", sandbox.path("config.toml"));
    run(command)
        .exits(0)
        .prints(&format!("{}\n", item("sample")));
    assert!(sandbox.root().join(&item("sample")[1..]).is_dir());
}
