//! The files that `subst query` writes: the page of `--html` and the metrics of `--metrics`.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::Value;

use super::{NOTHING, UNREACHABLE};
use crate::support::sandbox::run;
use crate::support::{Kind, Reply, Sandbox, Server, item};

/// What a query writes about a store with one valid item, and servers that have some items and fail for
/// others: the JSON, the page, the metrics.
fn query(sandbox: &Sandbox) -> (Value, String, String) {
    let notes = item("notes");
    sandbox
        .subst(&Kind::Guix.url(), &["fetch", &notes])
        .exits(0);
    let hash = item("link")["/gnu/store/".len()..][..32].to_owned();
    let server = Server::start(move |request| {
        if request.path.contains(&hash) {
            Reply::new("500 Oh", "")
        } else {
            Reply::file(&Kind::Guix.directory(), request)
        }
    });
    let empty = Server::start(|_| Reply::not_found());

    let urls = format!("{} {}", empty.url(), server.url());
    let arguments = [
        "query",
        "--json",
        "--cache-miss-report",
        "--html=page.html",
        "--metrics=metrics.prom",
        &item("tools"),
        &notes,
        &item("link"),
        NOTHING,
    ];
    let json = sandbox.subst(&urls, &arguments).exits(4).json();
    let read = |name: &str| std::fs::read_to_string(sandbox.path(name)).unwrap();
    (json, read("page.html"), read("metrics.prom"))
}

/// The value of the attribute `name` in a piece of HTML.
fn attribute<'a>(html: &'a str, name: &str) -> Option<&'a str> {
    let (_, behind) = html.split_once(&*format!(" {name}=\""))?;
    behind.split('"').next()
}

/// The text of the element in `html` that has this `data-key`.
fn text_of_key<'a>(html: &'a str, key: &str) -> &'a str {
    let (_, behind) = html
        .split_once(&*format!("data-key=\"{key}\""))
        .unwrap_or_else(|| panic!("no {key} in {html}"));
    let (_, text) = behind.split_once('>').unwrap();
    text.split('<').next().unwrap()
}

/// The pieces of `html` that begin with `start`, each up to `end`.
fn pieces<'a>(html: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    let behind = html.split(start).skip(1);
    behind
        .map(|piece| piece.split(end).next().unwrap())
        .collect()
}

#[test]
fn the_page_has_the_numbers_of_the_json() {
    let sandbox = Sandbox::new();
    let (json, page, _) = query(&sandbox);
    let (summary, report) = (&json["summary"], &json["report"]);
    for status in [
        "available",
        "valid",
        "preparing",
        "missing",
        "refused",
        "unknown",
    ] {
        assert_eq!(
            text_of_key(&page, status),
            summary[status].to_string(),
            "{status}"
        );
    }
    assert_eq!(
        text_of_key(&page, "to_build"),
        report["to_build"].to_string()
    );
    for size in ["download_size", "nar_size"] {
        let (_, tile) = page
            .split_once(&*format!("data-key=\"{size}\" data-value"))
            .unwrap();
        let value = tile.trim_start_matches("=\"").split('"').next();
        assert_eq!(value.unwrap(), summary[size].to_string(), "{size}");
    }

    let servers = pieces(&page, "<tr data-server=\"", "</tr>");
    assert_eq!(servers.len(), 2);
    for (row, totals) in servers.iter().zip(report["servers"].as_array().unwrap()) {
        assert!(row.starts_with(totals["url"].as_str().unwrap()), "{row}");
        for key in [
            "asked",
            "from_cache",
            "available",
            "missing",
            "refused",
            "failed",
        ] {
            assert_eq!(
                text_of_key(row, key),
                totals[key].to_string(),
                "{key}: {row}"
            );
        }
    }

    assert_rows_of_items(&page, report);
}

#[test]
fn the_page_counts_in_singular_and_plural() {
    let sandbox = Sandbox::new();
    for (items, expected) in [
        (
            &[NOTHING][..],
            [
                "of 1 answer<",
                "<footer>1 request, 0 answers from the lookup cache and 1 other, ",
            ],
        ),
        (
            &[&item("tools"), &item("link")],
            ["of 2 answers<", "<footer>2 requests, 0 answers "],
        ),
    ] {
        let options = &["query", "--cache-miss-report", "--html=page.html"][..];
        sandbox.subst(&Kind::Guix.url(), &[options, items].concat());
        let page = std::fs::read_to_string(sandbox.path("page.html")).unwrap();
        for words in expected {
            assert!(page.contains(words), "no {words} in {page}");
        }
    }
}

/// The page has a row for each item of the report, and their numbers by reason.
fn assert_rows_of_items(page: &str, report: &Value) {
    let mut groups: BTreeMap<String, u64> = BTreeMap::new();
    let items = report["items"].as_array().unwrap();
    let rows = pieces(page, "<tr class=\"", "</tr>");
    assert_eq!(rows.len(), items.len());
    for item in items {
        let text = |name: &str| item[name].as_str().unwrap().to_owned();
        let path = text("path");
        let is_of_item = |row: &&&str| attribute(row, "data-path") == Some(&path);
        let row = rows.iter().find(is_of_item).unwrap();
        assert_eq!(attribute(row, "data-status"), Some(&*text("status")));
        assert_eq!(attribute(row, "data-group"), Some(&*text("group")));
        for key in ["nar_size", "download_size"] {
            let (before, _) = row.split_once(&*format!("data-key=\"{key}\"")).unwrap();
            let shown = before.rsplit_once("data-sort=\"").unwrap().1;
            let expected = item[key].as_u64().map(|size| size.to_string());
            assert_eq!(
                shown.split('"').next().unwrap(),
                expected.unwrap_or_default()
            );
        }
        *groups.entry(text("group")).or_default() += 1;
    }

    let shown = pieces(page, "data-group=\"", ">");
    let counted = shown.iter().filter_map(|piece| {
        let count = attribute(piece, "data-count")?.parse().unwrap();
        Some((piece.split('"').next()?.to_owned(), count))
    });
    assert_eq!(counted.collect::<BTreeMap<_, _>>(), groups);
}

#[test]
fn text_from_servers_is_escaped_in_the_page_and_in_metrics() {
    let sandbox = Sandbox::new();
    let hostile = "/x<script>alert(1)</script>\"' onload=\u{202e}{{path}}&";
    let info = format!("StoreDir: {hostile}\n");
    let server = Server::start(move |request| {
        if request.path == "/nix-cache-info" {
            Reply::new("200 OK", info.clone())
        } else {
            Reply::not_found()
        }
    });
    let arguments = [
        "query",
        "--cache-miss-report",
        "--html=page.html",
        "--metrics=metrics.prom",
        NOTHING,
    ];
    // Known only after the first answer.
    for _ in 0..2 {
        sandbox.subst(&server.url(), &arguments);
    }
    let page = std::fs::read_to_string(sandbox.path("page.html")).unwrap();
    let escaped =
        "/x&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39; onload=\\u{202e}{{path}}&amp;";
    assert!(page.contains(escaped), "{page}");
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains('\u{202e}'));
}

#[test]
fn metrics_have_the_numbers_of_the_json() {
    let sandbox = Sandbox::new();
    let (json, _, metrics) = query(&sandbox);
    assert!(metrics.ends_with("\n# EOF\n"), "{metrics}");

    let (mut families, mut samples) = (HashSet::new(), BTreeMap::new());
    for line in metrics.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let family = family.strip_suffix(" gauge").unwrap();
            assert!(families.insert(family), "{family} is declared twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let family = name.split('{').next().unwrap();
            assert!(families.contains(family), "{line}");
            let value: f64 = value.parse().unwrap();
            assert_eq!(samples.insert(name, value), None, "{line}");
        }
    }
    for family in &families {
        assert!(metrics.contains(&format!("# HELP {family} ")), "{family}");
        let units = ["bytes", "seconds", "ratio"];
        let unit = units
            .iter()
            .find(|unit| family.ends_with(&format!("_{unit}")));
        let declared = unit.map(|unit| metrics.contains(&format!("# UNIT {family} {unit}\n")));
        assert_ne!(declared, Some(false), "{family}");
    }

    let assert_equal = |name: &str, value: &Value| {
        assert_eq!(samples.get(name).copied(), value.as_f64(), "{name}");
    };
    for status in [
        "available",
        "valid",
        "preparing",
        "missing",
        "refused",
        "unknown",
    ] {
        let name = format!("subst_query_items{{status=\"{status}\"}}");
        assert_equal(&name, &json["summary"][status]);
    }
    for (name, key) in [
        ("subst_query_download_size_bytes", "download_size"),
        ("subst_query_nar_size_bytes", "nar_size"),
        ("subst_query_requests", "requests"),
        ("subst_query_duration_seconds", "seconds"),
        ("subst_query_answers{source=\"cache\"}", "cache_hits"),
        ("subst_query_answers{source=\"server\"}", "cache_misses"),
    ] {
        assert_equal(name, &json["summary"][key]);
    }
    assert_equal("subst_query_items_to_build", &json["report"]["to_build"]);
    for totals in json["report"]["servers"].as_array().unwrap() {
        let url = totals["url"].as_str().unwrap();
        for answer in ["available", "missing", "preparing", "refused", "failed"] {
            let name =
                format!("subst_query_server_answers{{server=\"{url}\",answer=\"{answer}\"}}");
            assert_equal(&name, &totals[answer]);
        }
    }
}

#[test]
fn metrics_need_no_report() {
    let sandbox = Sandbox::new();
    let arguments = ["query", "--json", "--metrics=metrics.prom", &item("tools")];
    let json = sandbox.subst(&Kind::Guix.url(), &arguments).exits(0).json();
    assert_eq!(json.get("report"), None);
    assert!(sandbox.path("metrics.prom").is_file());
}

#[test]
fn files_that_cannot_be_written_are_reported_before_any_request() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("theirs"), "precious").unwrap();
    symlink("theirs", sandbox.path("link")).unwrap();
    let server = Server::of(Kind::Guix.directory());
    for (file, why) in [
        ("no/such/page.html", "No such file"),
        ("link", "symbolic link"),
        ("home", "not a regular file"),
    ] {
        let option = format!("--html={file}");
        let arguments = ["query", "--cache-miss-report", &option, &item("tools")];
        sandbox
            .subst(&server.url(), &arguments)
            .exits(5)
            .says(file)
            .says(why);
    }
    assert_eq!(server.requests_for(""), 0);
    assert_eq!(std::fs::read(sandbox.path("theirs")).unwrap(), b"precious");
    sandbox
        .subst(UNREACHABLE, &["query", "--html=page.html", NOTHING])
        .exits(2)
        .says("--cache-miss-report");
}

/// The name can be opened, and is too long for the temporary file beside it.
#[test]
fn the_result_is_printed_although_a_file_cannot_be_written() {
    let sandbox = Sandbox::new();
    let (tools, name) = (item("tools"), "m".repeat(250));
    let metrics = format!("--metrics={name}");
    let run = sandbox.subst(&Kind::Guix.url(), &["query", &metrics, &tools]);
    let run = run.exits(5).says(&format!("cannot write {name}"));
    assert!(run.stdout.contains("available"), "{}", run.stdout);
}

/// Two servers with one address, for two users: they are shown without their passwords.
#[test]
fn servers_that_differ_in_their_users_have_metrics_of_their_own() {
    let sandbox = Sandbox::new();
    let server = Server::of(Kind::Guix.directory());
    let address = server.url().replace("http://", "");
    let urls = format!("http://a:Sesame@{address} http://b:Sesame@{address}");
    let arguments = ["query", "--metrics=metrics.prom", NOTHING];
    sandbox.subst(&urls, &arguments);

    let metrics = std::fs::read_to_string(sandbox.path("metrics.prom")).unwrap();
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    let names = samples.map(|line| line.rsplit_once(' ').unwrap().0);
    let mut seen = HashSet::new();
    let doubled: Vec<&str> = names.filter(|name| !seen.insert(*name)).collect();
    assert_eq!(doubled, [""; 0], "{metrics}");
    assert!(
        metrics.contains(&format!("server=\"{} (2)\"", server.url())),
        "{metrics}"
    );
    assert!(!metrics.contains("Sesame"));
}

/// A monitoring system that could read the file can read the next one, and nobody else.
#[test]
fn a_written_file_follows_the_umask_and_keeps_the_mode_that_it_has() {
    let sandbox = Sandbox::new();
    let script = "umask $1; shift; exec \"$@\"";
    let mode_after = |umask: &str| {
        let query = sandbox.command(
            Kind::Guix,
            &Kind::Guix.url(),
            &["query", "--metrics=metrics.prom", &item("tools")],
        );
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", script, "sh", umask])
            .arg(query.get_program())
            .args(query.get_args())
            .current_dir(sandbox.path(""))
            .env_clear();
        let variables = query
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        command.envs(variables);
        run(command).exits(0);
        let file = sandbox.path("metrics.prom").metadata().unwrap();
        file.permissions().mode() & 0o7777
    };

    assert_eq!(mode_after("077"), 0o600);
    let file = sandbox.path("metrics.prom");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o664)).unwrap();
    assert_eq!(mode_after("077"), 0o664);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(mode_after("022"), 0o644);
}
