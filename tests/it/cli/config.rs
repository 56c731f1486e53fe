//! `subst config`: values, origins and errors of settings.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::{NOTHING, UNREACHABLE};
use crate::support::sandbox::run;
use crate::support::{Kind, Run, Sandbox, repository};

fn config(sandbox: &Sandbox, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = sandbox.bare(&["config"]);
    command.args(arguments).envs(variables.iter().copied());
    run(command)
}

fn setting<'a>(json: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let mut settings = json["settings"].as_array().unwrap().iter();
    settings.find(|setting| setting["name"] == name).unwrap()
}

/// The next command would fail with them.
#[test]
fn the_settings_of_diagnostics_are_checked() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("none/log").display().to_string();
    let log_file = [("SUBST_LOG", "debug"), ("SUBST_LOG_FILE", &*file)];
    for (variables, fault) in [
        (
            &[("SUBST_LOG", "subst=loud")][..],
            "`subst=loud` is not a filter",
        ),
        (
            &log_file,
            &format!("error: cannot open the log file {file}"),
        ),
    ] {
        let check = config(&sandbox, &["check"], variables).exits(2).says(fault);
        assert!(!check.stderr.contains("are valid"), "{}", check.stderr);
        config(&sandbox, &["show"], variables).exits(2).says(fault);
        let json = config(&sandbox, &["check", "--json"], variables).json();
        assert_eq!(json["valid"], false);
    }
    config(&sandbox, &["check"], &[("SUBST_LOG_FILE", &file)]).exits(0);
}

#[test]
fn config_show_names_the_origin_of_every_setting() {
    let sandbox = Sandbox::new();
    sandbox.write_safely("config.toml", "jobs = 3\n\nstall-timeout = \"2m\"\n");
    let file = sandbox.path("config.toml").display().to_string();
    let variables = [
        ("SUBST_CONNECTIONS", "7"),
        ("https_proxy", "me:Sesame@proxy"),
    ];
    let arguments = ["show", "--substitute-urls", "http://me:Sesame@a http://b"];
    let text = config(&sandbox, &arguments, &variables).exits(0);
    for (setting, origin) in [
        ("jobs = 3", &*format!("{file}:1")),
        ("stall-timeout = \"120s\"", &format!("{file}:3")),
        ("connections = 7", "SUBST_CONNECTIONS"),
        (
            "substitute-urls = [\"http://***@a\", \"http://b\"]",
            "--substitute-urls",
        ),
        ("acl = \"/etc/guix/acl\"", "default"),
        ("# root", "default: the system's store"),
    ] {
        let found = text.stdout.lines().any(|line| {
            let (shown, comment) = line.rsplit_once("  # ").unwrap_or_default();
            shown.trim_end() == setting && comment == origin
        });
        assert!(found, "{setting}, {origin}: {}", text.stdout);
    }
    assert!(
        text.stdout.contains("#   https_proxy: ***@proxy"),
        "{}",
        text.stdout
    );
    assert!(!text.stdout.contains("Sesame"), "{}", text.stdout);

    let arguments = [&arguments[..], &["--json"]].concat();
    let json = config(&sandbox, &arguments, &variables).exits(0).json();
    assert_eq!(setting(&json, "jobs")["value"], 3);
    let origin = serde_json::json!({ "kind": "file", "name": file, "line": 1 });
    assert_eq!(setting(&json, "jobs")["origin"], origin);
    assert_eq!(setting(&json, "connections")["origin"]["kind"], "variable");
    assert!(!json.to_string().contains("Sesame"), "{json}");
}

/// What is shown is a settings file: it sets what it shows.
#[test]
fn config_show_prints_a_settings_file() {
    let sandbox = Sandbox::new();
    let text = "limit-rate = \"1.5M\"\nlimit-rate-hours = \"08:00-18:30\"\nroot = \"/a \\\"b\\\"\"\n\
        insecure-tls = true\n[[server]]\nurl = \"http://a/x\"\nretry-time = \"5m\"\n";
    sandbox.write_safely("config.toml", text);
    let first = config(&sandbox, &["show", "--json"], &[]).exits(0).json();
    let shown = config(&sandbox, &["show"], &[]).exits(0).stdout;
    sandbox.write_safely("config.toml", &shown);
    let second = config(&sandbox, &["show", "--json"], &[]).exits(0).json();
    for name in [
        "limit-rate",
        "limit-rate-hours",
        "root",
        "insecure-tls",
        "server",
        "jobs",
    ] {
        assert_eq!(
            setting(&first, name)["value"],
            setting(&second, name)["value"]
        );
    }
    assert_eq!(setting(&second, "jobs")["origin"]["kind"], "file");
}

#[test]
fn config_check_reports_all_errors() {
    let sandbox = Sandbox::new();
    config(&sandbox, &["check", "--acl", "acl"], &[])
        .exits(0)
        .prints("")
        .says("the settings are valid");

    sandbox.write_safely("config.toml", "jobs = 0\nsubstitute-url = \"http://a\"\n");
    let variables = [("SUBST_SYNC", "always")];
    let wrong = config(&sandbox, &["check"], &variables).exits(2).prints("");
    let file = sandbox.path("config.toml").display().to_string();
    let wrong = wrong
        .says("subst: error: SUBST_SYNC: ")
        .says(&format!("subst: error: {file}:1: jobs: "))
        .says(&format!(
            "{file}:2: unknown setting `substitute-url`; did you mean `substitute-urls`?"
        ));
    assert_eq!(
        wrong.stderr.matches("error: ").count(),
        3,
        "{}",
        wrong.stderr
    );

    let json = config(&sandbox, &["check", "--json"], &variables)
        .exits(2)
        .json();
    assert_eq!(json["valid"], false);
    assert_eq!(json["errors"].as_array().unwrap().len(), 3);
    config(&sandbox, &["show"], &variables)
        .exits(2)
        .says("SUBST_SYNC");

    // Every other command reports them as well.
    let query = sandbox
        .subst(UNREACHABLE, &["query", super::NOTHING])
        .exits(2);
    assert_eq!(
        query.stderr.matches("error: ").count(),
        2,
        "{}",
        query.stderr
    );
}

#[test]
fn config_check_reads_the_keys() {
    let sandbox = Sandbox::new();
    sandbox.write_safely("broken-acl", "(acl");
    config(&sandbox, &["check", "--acl", "broken-acl"], &[])
        .exits(2)
        .says("broken-acl is invalid");
    let root = sandbox.root();
    config(&sandbox, &["check", "--root", root.to_str().unwrap()], &[]).exits(0);
    assert!(!root.exists(), "a check creates nothing");
}

#[test]
fn completions_need_no_valid_settings() {
    let sandbox = Sandbox::new();
    sandbox.write_safely("config.toml", "jobs = 0\n");
    run(sandbox.bare(&["completions", "bash"])).exits(0);
}

#[test]
fn the_example_settings_are_valid() {
    let example = std::fs::read_to_string(repository().join("packaging/config.toml")).unwrap();
    let settings: Vec<&str> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase() || first == '['))
        .collect();
    assert!(settings.len() > 10, "{settings:?}");

    let sandbox = Sandbox::new();
    sandbox.write_safely("config.toml", &settings.join("\n"));
    sandbox.write_safely("token", "example");
    config(&sandbox, &["check"], &[]).exits(0);
}

/// A settings file that is there counts, whether it is at a usual place or named: one that is left out would
/// mean other servers and other keys.
#[test]
fn a_settings_file_that_cannot_be_read_is_an_error() {
    type Make = fn(&Path);
    let make: [(&str, Make); 4] = [
        ("Is a directory", |file| std::fs::create_dir(file).unwrap()),
        ("No such file or directory", |file| {
            symlink("moved.toml", file).unwrap();
        }),
        ("not UTF-8", |file| std::fs::write(file, b"\xff").unwrap()),
        ("Permission denied", |file| {
            std::fs::write(file, "jobs = 3\n").unwrap();
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o000)).unwrap();
        }),
    ];
    for (cause, make) in make {
        let sandbox = Sandbox::new();
        let example = sandbox.write_config("home/.config/subst/example", "");
        let file = example.with_file_name("config.toml");
        make(&file);
        if cause == "Permission denied" && std::fs::read(&file).is_ok() {
            eprintln!("skipped: root may read every file");
            continue;
        }

        for arguments in [&["config", "check"][..], &["query", super::NOTHING]] {
            let mut command = sandbox.bare(arguments);
            command.env_remove("SUBST_CONFIG");
            command.args(["--substitute-urls", UNREACHABLE]);
            let ended = run(command);
            let code = if arguments[0] == "config" || cause == "not UTF-8" {
                2
            } else {
                5
            };
            ended
                .exits(code)
                .prints("")
                .says(&file.display().to_string())
                .says(cause);
        }
    }
}

#[test]
fn a_closed_directory_of_this_user_is_an_error_and_a_missing_one_is_not() {
    let sandbox = Sandbox::new();
    let file = sandbox.write_config("home/.config/subst/config.toml", "jobs = 0\n");
    let directory = file.parent().unwrap();
    let check = |home: &str| {
        let mut command = sandbox.bare(&["config", "check", "--acl", "acl"]);
        command.env_remove("SUBST_CONFIG").env("HOME", home);
        run(command)
    };
    for home in ["/nonexistent", "/dev/null"] {
        check(home).exits(0).says("the settings are valid");
    }

    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o000)).unwrap();
    let is_closed = file.metadata().is_err();
    let checked = check(sandbox.path("home").to_str().unwrap());
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let cause = if is_closed {
        "Permission denied"
    } else {
        "jobs"
    };
    checked.exits(2).says(cause);
}

/// As root, which could write to the system's store, an empty variable in a script would be a disaster.
#[test]
fn an_empty_option_is_an_error_and_an_empty_variable_is_not_set() {
    let sandbox = Sandbox::new();
    for option in [
        "--root",
        "--store-dir",
        "--acl",
        "--netrc-file",
        "--jobs",
        "--limit-rate",
    ] {
        run(sandbox.bare(&["query", super::NOTHING, option, ""]))
            .exits(2)
            .prints("")
            .says(&format!("error: {option}: the value is empty"));
    }
    run(sandbox.bare(&["query", super::NOTHING, "--config", ""])).exits(2);

    let variables = [
        "SUBST_ROOT",
        "SUBST_STORE_DIR",
        "SUBST_ACL",
        "SUBST_JOBS",
        "SUBST_SUBSTITUTE_URLS",
    ];
    let variables = variables.map(|name| (name, ""));
    let json = config(&sandbox, &["show", "--json"], &variables)
        .exits(0)
        .json();
    for name in ["root", "store-dir", "acl", "jobs", "substitute-urls"] {
        assert_eq!(setting(&json, name)["origin"]["kind"], "default", "{name}");
    }
}

#[test]
fn paths_of_a_settings_file_are_relative_to_it_or_to_the_home() {
    let sandbox = Sandbox::new();
    sandbox.write_config("conf/netrc", "machine a login b password c\n");
    let text = "root = \"~/store\"\nacl = \"../acl\"\nnetrc-file = \"netrc\"\n";
    let file = sandbox.write_config("conf/subst.toml", text);
    let variables = [("SUBST_CONFIG", file.to_str().unwrap())];
    config(&sandbox, &["check"], &variables).exits(0);
    let json = config(&sandbox, &["show", "--json"], &variables)
        .exits(0)
        .json();
    for (name, path) in [
        ("root", "home/store"),
        ("acl", "conf/../acl"),
        ("netrc-file", "conf/netrc"),
    ] {
        let expected = sandbox.path(path).display().to_string();
        assert_eq!(setting(&json, name)["value"], *expected, "{name}");
    }
}

#[test]
fn trust_options_for_the_other_kind_of_store_are_errors_and_variables_are_not() {
    let sandbox = Sandbox::new();
    let check = |arguments: &[&str], variables: &[(&str, &str)]| {
        config(&sandbox, &[&["check"], arguments].concat(), variables)
    };
    let key = "a:BFi7m3GLPzW/sUqMTO+zXivUxdOZIZZVcvFIUzcpTKY=";
    check(&["--trusted-public-keys", key], &[])
        .exits(2)
        .says("keys of Nix");
    let nix = ["--store-dir", "/nix/store"];
    let acl = [&nix[..], &["--acl", "acl"]].concat();
    check(&acl, &[]).exits(2).says("keys of Guix");
    check(&[], &[("SUBST_TRUSTED_PUBLIC_KEYS", key)]).exits(0);
    check(&nix, &[("SUBST_ACL", "acl")]).exits(0);
}

#[test]
fn only_yes_switches_signature_checks_off() {
    let sandbox = Sandbox::new();
    for (value, is_off) in [("yes", true), ("YES", true), ("true", false), ("1", false)] {
        let mut command = sandbox.command(Kind::Guix, &Kind::Guix.url(), &["query", NOTHING]);
        command.env("GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES", value);
        let ended = run(command).exits(1);
        let text = "signatures are not verified";
        assert_eq!(ended.stderr.contains(text), is_off, "{value}");
    }
}

#[test]
fn errors_of_settings_are_events_if_the_variable_says_so() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.bare(&["servers"]);
    command.env("SUBST_PROGRESS", "json").env("SUBST_JOBS", "0");
    let ended = run(command).exits(2);
    assert!(ended.stderr.starts_with('{'), "{}", ended.stderr);
}
