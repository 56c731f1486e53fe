//! The servers and items that snapshots name with variables. A server is started only for the
//! snapshots that name it, and is shown under a fixed name.

use std::path::PathBuf;

use crate::support::fixture::only;
use crate::support::server::Request;
use crate::support::{Fixture, Kind, Reply, Sandbox, Server, files_below, item};

/// A server as snapshots name it.
struct NamedServer {
    /// The variable with its URL.
    variable: &'static str,
    /// The host that stands for its address.
    host: &'static str,
    handler: fn(&Request) -> Reply,
}

/// The servers of the snapshots.
const SERVERS: [NamedServer; 18] = [
    NamedServer {
        variable: "GOOD",
        host: "good.example",
        handler: |request| edited(request, str::to_owned),
    },
    NamedServer {
        variable: "EMPTY",
        host: "empty.example",
        handler: |request| with_cache_info(request, Reply::not_found()),
    },
    NamedServer {
        variable: "WITHOUT_NOTES",
        host: "without-notes.example",
        handler: |request| match is_about(request, "notes") {
            true => Reply::not_found(),
            false => edited(request, str::to_owned),
        },
    },
    NamedServer {
        variable: "FORBIDDEN",
        host: "forbidden.example",
        handler: |request| with_cache_info(request, Reply::new("403 Forbidden", "no")),
    },
    NamedServer {
        variable: "MISTYPED",
        host: "mistyped.example",
        handler: |_| Reply::not_found(),
    },
    NamedServer {
        variable: "BROKEN",
        host: "broken.example",
        handler: |_| Reply::new("500 Internal Server Error", "no"),
    },
    NamedServer {
        variable: "BUSY",
        host: "busy.example",
        handler: |_| Reply::new("503 Service Unavailable", "no").header("Retry-After: 120"),
    },
    NamedServer {
        variable: "LOCKED",
        host: "locked.example",
        handler: |_| Reply::new("401 Unauthorized", "no"),
    },
    NamedServer {
        variable: "LOGIN_PAGE",
        host: "login-page.example",
        handler: |_| Reply::new("200 OK", "<html>Hello</html>").header("Content-Type: text/html"),
    },
    NamedServer {
        variable: "OTHER_STORE",
        host: "other-store.example",
        handler: |request| match &*request.path {
            "/nix-cache-info" => Reply::new("200 OK", "StoreDir: /nix/store\n"),
            _ => Reply::not_found(),
        },
    },
    NamedServer {
        variable: "PREPARING",
        host: "preparing.example",
        handler: |request| with_cache_info(request, Reply::not_found().header("X-Baking: 1")),
    },
    NamedServer {
        variable: "FORGED",
        host: "forged.example",
        handler: |request| edited(request, |text| text.replace("NarSize: ", "NarSize: 1")),
    },
    NamedServer {
        variable: "UNSIGNED",
        host: "unsigned.example",
        handler: |request| edited(request, |text| without_lines(text, "Signature: ")),
    },
    NamedServer {
        variable: "NO_NARS",
        host: "no-nars.example",
        handler: |request| match request.path.starts_with("/nar/") {
            true => Reply::not_found(),
            false => edited(request, str::to_owned),
        },
    },
    NamedServer {
        variable: "NARS_ON_SERVER_THAT_IS_DOWN",
        host: "narinfos.example",
        handler: |request| {
            edited(request, |text| {
                text.replace("\nURL: ", &format!("\nURL: http://{DOWN}/"))
            })
        },
    },
    NamedServer {
        variable: "LOGIN_PROXY",
        host: "login-proxy.example",
        handler: |_| Reply::new("407 Proxy Authentication Required", "no"),
    },
    NamedServer {
        variable: "WRONG_NARS",
        host: "wrong-nars.example",
        handler: |request| match request.path.starts_with("/nar/") {
            true => Reply::new("200 OK", "this is not a nar"),
            false => edited(request, str::to_owned),
        },
    },
    NamedServer {
        variable: "CUT",
        host: "cut.example",
        handler: |request| match request.path.starts_with("/nar/") {
            true => Reply::file(&fixture(), request).cut_at(100),
            false => edited(request, str::to_owned),
        },
    },
];

/// No server listens on this address.
const DOWN: &str = "127.0.0.1:1";

/// The only compression method that servers offer: which one is chosen depends on the machine.
const METHOD: &str = "lzip";

fn fixture() -> PathBuf {
    Kind::Guix.directory()
}

/// Whether `script` uses `variable`.
fn is_named(variable: &str, script: &str) -> bool {
    script.contains(&format!("${variable}")) || script.contains(&format!("${{{variable}"))
}

/// Whether `request` is for the narinfo of the fixture's item `name`.
fn is_about(request: &Request, name: &str) -> bool {
    let hash_part = request
        .path
        .trim_start_matches('/')
        .trim_end_matches(".narinfo");
    item(name).contains(&format!("/{hash_part}-"))
}

fn with_cache_info(request: &Request, other: Reply) -> Reply {
    match &*request.path {
        "/nix-cache-info" => Reply::file(&fixture(), request),
        _ => other,
    }
}

/// The file that `request` names; a narinfo with one download, and edited.
fn edited(request: &Request, edit: fn(&str) -> String) -> Reply {
    let mut reply = Reply::file(&fixture(), request);
    if request.path.ends_with(".narinfo") && reply.is_ok() {
        let text = String::from_utf8(reply.body).unwrap();
        reply.body = edit(&only(&text, METHOD)).into_bytes();
    }
    reply
}

fn without_lines(text: &str, start: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with(start));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The servers of one snapshot.
pub(super) struct Servers {
    running: Vec<(&'static NamedServer, Server)>,
    variables: Vec<(&'static str, String)>,
}

impl Servers {
    /// Starts the servers whose variables are in `script`.
    pub(super) fn start(script: &str, sandbox: &Sandbox) -> Self {
        let named = SERVERS
            .iter()
            .filter(|server| is_named(server.variable, script));
        let running: Vec<_> = named
            .map(|server| (server, Server::start(server.handler)))
            .collect();

        let files = sandbox.path("files");
        if is_named("FILES", script) {
            Fixture::copy(Kind::Guix, files.clone()).only(METHOD);
        }
        let mut variables = vec![
            ("DOWN", format!("http://{DOWN}")),
            ("FILES", format!("file://{}", files.display())),
            ("FIXTURES", fixture().display().to_string()),
            ("ACL", sandbox.path("acl").display().to_string()),
            ("TOOLS", item("tools")),
            ("SAMPLE", item("sample")),
            ("NOTES", item("notes")),
            ("NOTHING", format!("/gnu/store/{}-nothing", "0".repeat(32))),
        ];
        let urls = running.iter();
        variables.extend(urls.map(|(server, running)| (server.variable, running.url())));
        Self { running, variables }
    }

    /// The variables of the shell.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let variables = self.variables.iter();
        variables.map(|(name, value)| (*name, value.as_str()))
    }

    /// `text` with the names of the servers instead of their addresses.
    pub(super) fn with_names(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (server, running) in &self.running {
            text = text.replace(&running.address().to_string(), server.host);
        }
        text.replace(&format!("{DOWN}/"), "down.example/")
            .replace(&format!("{DOWN}:"), "down.example:")
            .replace(&format!("{DOWN} "), "down.example ")
            .replace(&format!("{DOWN}`"), "down.example`")
            .replace(&format!("{DOWN}\n"), "down.example\n")
    }
}

#[test]
fn every_server_of_the_snapshots_is_used() {
    let directory = super::directory();
    let snapshots: String = files_below(&directory, ".txt")
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    for server in &SERVERS {
        assert!(is_named(server.variable, &snapshots), "{}", server.variable);
    }
}
