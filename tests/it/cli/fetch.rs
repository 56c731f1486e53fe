//! `subst fetch`: what would be done, and what was done, as data.

use serde_json::json;

use super::{NOTHING, SLOW_LINE};
use crate::support::sandbox::make_writable;
use crate::support::{Kind, Reply, Sandbox, Server, item};

#[test]
fn dry_run_lists_what_would_be_fetched() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let (tools, notes) = (item("tools"), item("notes"));
    let dry = sandbox
        .subst(&server.url(), &["fetch", "--dry-run", SLOW_LINE, &tools])
        .exits(0);
    let words: Vec<Vec<&str>> = dry
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let url = server.url();
    let wanted = [
        [&*notes, "524", "B", "12.7", "KiB", &url],
        [&*tools, "474", "B", "3.0", "KiB", &url],
    ];
    assert_eq!(words, wanted);
    let columns: Vec<_> = dry
        .stdout
        .lines()
        .map(|line| line.find("http://"))
        .collect();
    assert_eq!(columns[0], columns[1], "{}", dry.stdout);
    dry.says("2 items would be fetched: 998 B to download as lzip, 15.7 KiB unpacked");
    let json = sandbox
        .subst(&url, &["fetch", "-n", "--json", SLOW_LINE, &tools, NOTHING])
        .exits(1)
        .json();
    let base = tools.trim_start_matches("/gnu/store/");
    let wanted = json!({
        "path": tools, "server": url, "url": format!("{url}/nar/lzip/{base}"),
        "compression": "lzip", "download_size": 474, "nar_size": 3096,
    });
    assert_eq!(json["fetch"][1], wanted);
    assert_eq!(
        (&json["nar_size"], &json["download_size"]),
        (&(13_008 + 3096).into(), &998.into())
    );
    assert_eq!(json["failed"][0]["path"], NOTHING);
    assert_eq!(server.requests_for("/nar/"), 0);
}

#[test]
fn dry_run_needs_no_write_permission() {
    let sandbox = Sandbox::new();
    let (url, tools, notes) = (Kind::Guix.url(), item("tools"), item("notes"));
    let dry_run = || {
        sandbox
            .subst(&url, &["fetch", "--dry-run", &tools])
            .exits(0)
    };
    dry_run().says("2 items would be fetched");
    assert!(!sandbox.store().exists());
    sandbox.subst(&url, &["fetch", &notes]).exits(0);
    // A store that refuses temp roots.
    let roots = sandbox.root().join("var/guix/temproots");
    std::fs::remove_dir(&roots).unwrap();
    std::fs::write(&roots, "").unwrap();
    dry_run().says("1 item would be fetched");
    sandbox.subst(&url, &["fetch", &tools]).exits(5).prints("");
}

#[test]
fn json_reports_the_result_of_each_item() {
    let sandbox = Sandbox::new();
    let (url, tools, notes) = (Kind::Guix.url(), item("tools"), item("notes"));
    sandbox.subst(&url, &["fetch", &notes]).exits(0);
    let arguments = ["fetch", "--json", "--keep-going", &notes, NOTHING, &tools];
    let json = sandbox
        .subst(&url, &arguments)
        .exits(1)
        .says("cannot fetch")
        .json();
    let reason = json["items"][2]["reason"].clone();
    assert!(
        reason.as_str().unwrap().starts_with("no server has it"),
        "{json:#}"
    );
    let unknown = serde_json::Value::Null;
    let wanted = json!({ "items": [
        { "path": notes, "status": "valid", "download_size": unknown, "nar_size": unknown,
          "reason": unknown },
        { "path": tools, "status": "fetched", "download_size": 474, "nar_size": 3096,
          "reason": unknown },
        { "path": NOTHING, "status": "failed", "download_size": unknown, "nar_size": unknown,
          "reason": reason },
    ] });
    assert_eq!(json, wanted, "{json:#}");
}

#[test]
fn output_with_json_reports_its_item() {
    let sandbox = Sandbox::new();
    let (url, tools) = (Kind::Guix.url(), item("tools"));
    let json = |path: &str, code| {
        let arguments = ["fetch", "--json", "--output", "tree", path];
        sandbox.subst(&url, &arguments).exits(code).json()["items"][0].clone()
    };
    let done = json(&tools, 0);
    assert_eq!(
        (&done["path"], &done["status"]),
        (&(&*tools).into(), &"fetched".into())
    );
    assert_eq!(
        (&done["download_size"], &done["nar_size"]),
        (&474.into(), &3096.into())
    );
    // Only root can remove what is in read-only directories.
    make_writable(&sandbox.path("tree"));
    std::fs::remove_dir_all(sandbox.path("tree")).unwrap();
    let failed = json(NOTHING, 1);
    assert_eq!(
        (&failed["path"], &failed["status"]),
        (&NOTHING.into(), &"failed".into())
    );
    assert!(
        failed["reason"]
            .as_str()
            .unwrap()
            .starts_with("no server has it"),
        "{failed}"
    );
}

/// The first failure is reported, and how many more there were.
#[test]
fn repeated_failures_of_a_server_are_counted() {
    let sandbox = Sandbox::new();
    let without_nars = Server::start(|request| {
        if request.path.starts_with("/nar/") {
            Reply::not_found()
        } else {
            Reply::file(&Kind::Guix.directory(), request)
        }
    });
    let urls = format!("{} {}", without_nars.url(), Kind::Guix.url());
    let fetch = ["fetch", "--jobs", "1", &item("sample")];
    let fetched = sandbox.subst(&urls, &fetch).exits(0);
    let address = without_nars.url().replace("http://", "");
    let (before, _) = fetched
        .stderr
        .split_once(" more downloads failed in the same way (--verbose shows all)\n")
        .unwrap_or_else(|| panic!("{}", fetched.stderr));
    let count = before.rsplit_once(&format!("\n  {address}: ")).unwrap().1;
    // The other server may turn out to be faster, and be used before this one.
    assert!(count.parse::<usize>().unwrap() >= 1, "{}", fetched.stderr);
    let warnings = format!(" from {}/nar/", without_nars.url());
    assert_eq!(
        fetched.stderr.matches(&warnings).count(),
        1,
        "{}",
        fetched.stderr
    );

    sandbox.remove_root();
    let fetch = ["fetch", "--jobs", "1", "--verbose", &item("sample")];
    let fetched = sandbox.subst(&urls, &fetch).exits(0);
    assert!(
        !fetched.stderr.contains("in the same way"),
        "{}",
        fetched.stderr
    );
}
