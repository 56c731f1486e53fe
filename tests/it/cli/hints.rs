//! Hints name commands that concern the store at hand, and nothing that the options in use forbid.

use super::{NOTHING, UNREACHABLE};
use crate::support::sandbox::run;
use crate::support::{Kind, Reply, Sandbox, Server, item};

/// The command between the backquotes of the hint in `text`.
#[track_caller]
fn command(text: &str) -> String {
    let hint = text
        .split("hint: ")
        .nth(1)
        .unwrap_or_else(|| panic!("no hint: {text}"));
    hint.split('`')
        .nth(1)
        .unwrap_or_else(|| panic!("no command: {hint}"))
        .to_owned()
}

#[test]
fn the_command_that_authorizes_a_key_is_for_the_same_root() {
    let sandbox = Sandbox::new();
    let root = sandbox.path("it's my root");
    let subst = |arguments: &[&str]| {
        let mut command = sandbox.bare(arguments);
        command.env_remove("SUBST_CONFIG").arg("--root").arg(&root);
        command.args(["--substitute-urls", &Kind::Guix.url()]);
        run(command)
    };
    let tools = item("tools");
    let quoted = root.display().to_string().replace('\'', r"'\''");
    let wanted = format!("subst authorize --root '{quoted}' KEYFILE");
    assert_eq!(command(&subst(&["fetch", &tools]).exits(3).stderr), wanted);
    assert_eq!(
        command(&subst(&["fetch", "--dry-run", &tools]).exits(3).stderr),
        wanted
    );
    let json = subst(&["query", "--json", "--cache-miss-report", &tools])
        .exits(3)
        .json();
    assert_eq!(
        command(&format!("hint: {}", json["report"]["items"][0]["hint"])),
        wanted.replace('\\', "\\\\")
    );

    // Obeyed, it helps.
    let key = Kind::Guix.directory().join("signing-key.pub");
    assert!(key.exists(), "the fixtures' key");
    let words = wanted.replace("KEYFILE", key.to_str().unwrap());
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_subst"))
        .parent()
        .unwrap();
    let mut shell = std::process::Command::new("/bin/sh");
    shell
        .env_clear()
        .env("PATH", binary)
        .env("HOME", sandbox.path("home"))
        .args(["-c", &words]);
    run(shell).exits(0);
    subst(&["fetch", &tools]).exits(0);
}

#[test]
fn the_command_that_authorizes_a_key_is_for_the_same_acl() {
    let sandbox = Sandbox::new();
    sandbox.write_safely("other", "(acl)");
    let with_acl = |acl: &str, code| {
        let mut command = sandbox.bare(&["fetch", &item("tools"), "--acl", acl]);
        command
            .env_remove("SUBST_CONFIG")
            .env("SUBST_ROOT", sandbox.root());
        command.args(["--substitute-urls", &Kind::Guix.url()]);
        run(command).exits(code).stderr
    };
    let (root, acl) = (sandbox.root(), sandbox.path("other"));
    let wanted = format!(
        "subst authorize --root {} --acl {} KEYFILE",
        root.display(),
        acl.display()
    );
    assert_eq!(command(&with_acl("other", 3)), wanted);
    // One that cannot be read as an ACL, and one that is not there.
    sandbox.write_safely("other", "(odd");
    assert!(with_acl("other", 3).contains(&wanted));
    assert!(with_acl("none", 3).contains(&wanted.replace("/other", "/none")));
}

#[test]
fn no_hint_contradicts_the_options_in_use() {
    let sandbox = Sandbox::new();
    let empty = Server::start(|_| Reply::not_found());
    let tools = item("tools");
    // A negative answer, and a server that is down, are in the lookup cache.
    let urls = format!("{} {UNREACHABLE}", empty.url());
    sandbox.subst(&urls, &["query", &tools]).exits(4);
    sandbox.subst(&empty.url(), &["query", NOTHING]).exits(1);
    for (urls, path) in [
        (&urls, &*tools),
        (&empty.url(), NOTHING),
        (&UNREACHABLE.to_owned(), &tools),
    ] {
        for arguments in [
            &["fetch", "--offline", path][..],
            &["fetch", "--offline", "--dry-run", path],
            &["query", "--offline", "--cache-miss-report", path],
        ] {
            let said = sandbox.subst(urls, arguments);
            let text = format!("{}{}", said.stdout, said.stderr);
            assert!(
                text.contains("leave out --offline"),
                "{arguments:?}: {text}"
            );
            assert!(!text.contains("--refresh"), "{arguments:?}: {text}");
        }
        for arguments in [
            &["fetch", "--refresh", path][..],
            &["query", "--refresh", "--cache-miss-report", path],
        ] {
            let said = sandbox.subst(urls, arguments);
            let text = format!("{}{}", said.stdout, said.stderr);
            assert!(
                text.contains("hint: ") && !text.contains("--refresh"),
                "{arguments:?}: {text}"
            );
        }
    }
}

#[test]
fn commands_for_the_same_servers_have_no_password() {
    let sandbox = Sandbox::new();
    let url = "http://me:Sesame@127.0.0.1:1";
    let said = sandbox.subst(url, &["fetch", NOTHING]).exits(4).stderr;
    let root = sandbox.root();
    let wanted = format!("subst servers --root {} ", root.display());
    let command = command(&said);
    assert!(command.starts_with(&wanted), "{command}");
    assert!(
        command.ends_with(" --substitute-urls http://127.0.0.1:1"),
        "{command}"
    );
}

#[test]
fn a_mistyped_name_behind_a_hash_is_told_from_a_fault_of_the_server() {
    let sandbox = Sandbox::new();
    let (url, tools) = (Kind::Guix.url(), item("tools"));
    let mistyped = tools.strip_suffix(".0").unwrap();
    let hint = "the server has this hash under the name subst-tools-1.0";
    let mirror = sandbox.path("mirror").display().to_string();
    let tree = sandbox.path("tree").display().to_string();
    for command in [
        &["fetch"][..],
        &["fetch", "--dry-run"],
        &["fetch", "--output", &tree],
        &["mirror", "--to", &mirror, "--closure"],
    ] {
        let command = [command, &[mistyped]].concat();
        sandbox.subst(&url, &command).exits(1).says(hint);
    }

    sandbox
        .subst(&url, &["query", mistyped])
        .exits(1)
        .says("1 missing");
    let report = sandbox.subst(&url, &["query", "--cache-miss-report", mistyped]);
    let report = report.exits(1).stdout;
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(report.contains(hint), "{report}");
    assert!(report.contains("MISSING, no server has it: 1"), "{report}");

    // From the lookup cache, too.
    sandbox.subst(&url, &["fetch", &tools]).exits(0);
    sandbox
        .subst(&url, &["fetch", "--offline", mistyped])
        .exits(1)
        .says(hint);
}
