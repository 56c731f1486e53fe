//! `subst config`: values, origins and errors of settings.

use super::UNREACHABLE;
use crate::support::sandbox::run;
use crate::support::{Run, Sandbox, repository};

fn config(sandbox: &Sandbox, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = sandbox.bare(&["config"]);
    command.args(arguments).envs(variables.iter().copied());
    run(command)
}

fn setting<'a>(json: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let mut settings = json["settings"].as_array().unwrap().iter();
    settings.find(|setting| setting["name"] == name).unwrap()
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
