//! Downloads with forbidden URLs: a narinfo's `URL` is not signed.

use super::Case;
use crate::support::{Kind, Reply, Server};

/// With one download, at `url`.
fn at(url: &str) -> Case {
    let case = Case::new();
    case.fixture.only("none");
    case.fixture.edit(&case.tools, |text| {
        let (signed, _) = text.split_once("\nURL: ").unwrap();
        format!("{signed}\nURL: {url}\nCompression: none\n")
    });
    case
}

#[test]
fn local_files_cannot_be_reached() {
    let nar = Kind::Guix.directory().join("nar");
    let tools = Kind::Guix.item("tools").replace("/gnu/store/", "");
    // The right nar, even: the place is what is wrong.
    let elsewhere = format!("file://{}/{tools}", nar.display());
    let cases = [
        "file:/etc/passwd",
        "file:///etc/passwd",
        "../../../../../../etc/passwd",
        "nar/../../secret",
        "nar/%2e%2e/%2e%2e/secret",
        "/../secret",
        "ftp://127.0.0.1/x",
        "data:,x",
        &elsewhere,
    ];
    for url in cases {
        let case = at(url);
        std::fs::write(case.sandbox.path("secret"), "secret").unwrap();
        let before = crate::support::listing::snapshot(&case.sandbox.root());
        let server = Server::of(case.fixture.dir.clone());
        for server in [case.fixture.url(), server.url()] {
            let ended = case.sandbox.subst(&server, &["fetch", &case.tools]);
            assert!(matches!(ended.code, Some(1 | 3 | 4)), "{url}: {ended:?}");
            assert_eq!(ended.stdout, "");
        }
        assert_eq!(
            crate::support::listing::snapshot(&case.sandbox.root()),
            before
        );
        assert!(
            server.asked().iter().all(|path| !path.contains("..")),
            "{:?}",
            server.asked()
        );
    }
}

#[test]
fn redirects_do_not_leave_http() {
    let case = Case::new();
    case.fixture.only("none");
    let nar = case.nar("none");
    let fixture = case.fixture.dir.clone();
    let server = Server::start(move |request| {
        if request.path.starts_with("/nar/") {
            return Reply::new("302 Found", "")
                .header(&format!("Location: file://{}", nar.display()));
        }
        Reply::file(&fixture, request)
    });
    case.is_refused_from(&server.url(), 4, "every download failed");
}

#[test]
fn redirects_within_http_are_followed() {
    let case = Case::new();
    case.fixture.only("none");
    let target = Server::of(case.fixture.dir.clone());
    let (fixture, base) = (case.fixture.dir.clone(), target.url());
    let server = Server::start(move |request| {
        if request.path.starts_with("/nar/") {
            return Reply::new("302 Found", "")
                .header(&format!("Location: {base}{}", request.path));
        }
        Reply::file(&fixture, request)
    });
    case.sandbox
        .subst(&server.url(), &["fetch", &case.tools])
        .exits(0);
    assert_eq!(target.requests_for("/nar/"), 1);
}

#[test]
fn redirect_loops_end() {
    let case = Case::new();
    let fixture = case.fixture.dir.clone();
    let server = Server::start(move |request| {
        if request.path.starts_with("/nar/") {
            return Reply::new("302 Found", "").header(&format!("Location: {}", request.path));
        }
        Reply::file(&fixture, request)
    });
    case.is_refused_from(&server.url(), 4, "every download failed");
}

#[test]
fn wrong_unsigned_sizes_are_harmless() {
    for size in ["18446744073709551615", "0", "1"] {
        let case = Case::new();
        for name in ["tools", "tree", "copy", "link"] {
            let path = Kind::Guix.item(name);
            case.fixture.edit(&path, |text| {
                let lines = text
                    .lines()
                    .map(|line| match line.strip_prefix("FileSize: ") {
                        Some(_) => format!("FileSize: {size}\n"),
                        None => format!("{line}\n"),
                    });
                lines.collect()
            });
        }
        let top = Kind::Guix.item("sample");
        let query = ["query", "--closure", "--json", &top];
        case.sandbox
            .subst(&case.fixture.url(), &query)
            .exits(0)
            .json();
        case.sandbox
            .subst(&case.fixture.url(), &["fetch", "--dry-run", &top])
            .exits(0);
        case.sandbox
            .subst(&case.fixture.url(), &["fetch", &top])
            .exits(0);
    }
}
