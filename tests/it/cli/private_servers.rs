//! Servers that want to know who asks: passwords, tokens, header fields and client certificates reach
//! their own server only, and nothing of them is shown or stored.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use data_encoding::BASE64;

use crate::support::sandbox::run;
use crate::support::tls::{Authority, Clients, TlsFront};
use crate::support::{Kind, Reply, Run, Sandbox, Server, files_below, item};

/// What no output may have.
const SECRET: &str = "Sesame-4711";
/// What is in the URL to which servers redirect for a moment.
const SIGNATURE: &str = "Signature=Papaya-0815";

/// A server that answers requests with this header field; nars are at another one.
fn private_server(name: &'static str, value: String, nars: Arc<Server>) -> Server {
    Server::start(move |request| {
        if !request.has(name, &value) {
            return Reply::new("401 Unauthorized", "who are you?");
        }
        if request.path.starts_with("/nar/") {
            let target = format!("{}{}?{SIGNATURE}", nars.url(), request.path);
            return Reply::new("302 Found", "").header(&format!("Location: {target}"));
        }
        Reply::file(&Kind::Guix.directory(), request)
    })
}

/// A server of nars whose URLs have a signature, as object stores have them.
fn object_store() -> Server {
    Server::start(|request| {
        let mut request = request.clone();
        let Some(path) = request.path.strip_suffix(&format!("?{SIGNATURE}")) else {
            return Reply::new("403 Forbidden", "no signature");
        };
        request.path = path.to_owned();
        Reply::file_or_range(&Kind::Guix.directory(), &request)
    })
}

/// How the program learns a secret.
#[derive(Debug, Clone, Copy)]
enum SecretPlace {
    Url,
    NetrcOfHome,
    NetrcOption,
    Token,
    Header,
}

/// The header field that has to arrive.
fn expected_field(place: SecretPlace) -> (&'static str, String) {
    let basic = BASE64.encode(format!("me:{SECRET}").as_bytes());
    match place {
        SecretPlace::Url | SecretPlace::NetrcOfHome | SecretPlace::NetrcOption => {
            ("authorization", format!("Basic {basic}"))
        }
        SecretPlace::Token => ("authorization", format!("Bearer {SECRET}")),
        SecretPlace::Header => ("x-api-key", SECRET.to_owned()),
    }
}

/// Everything that runs of the program wrote.
struct Written(String);

impl Written {
    #[track_caller]
    fn assert_secret(&self, what: &str) {
        let basic = BASE64.encode(format!("me:{SECRET}").as_bytes());
        for secret in [SECRET, &basic, SIGNATURE] {
            assert!(!self.0.contains(secret), "{what}: {secret} in: {}", self.0);
        }
    }
}

struct PrivateRuns {
    sandbox: Sandbox,
    place: SecretPlace,
    server: Server,
    nars: Arc<Server>,
    written: String,
}

impl PrivateRuns {
    fn new(place: SecretPlace) -> Self {
        let nars = Arc::new(object_store());
        let (name, value) = expected_field(place);
        let server = private_server(name, value, Arc::clone(&nars));
        let sandbox = Sandbox::new();
        let host = server.url().replace("http://", "");
        let netrc = format!("machine 127.0.0.1 login me password {SECRET}\n");
        let table = format!("[[server]]\nurl = \"http://{host}\"\n");
        match place {
            SecretPlace::Url => {}
            SecretPlace::NetrcOfHome => drop(sandbox.write_safely("home/.netrc", &netrc)),
            SecretPlace::NetrcOption => drop(sandbox.write_safely("secrets", &netrc)),
            SecretPlace::Token => {
                sandbox.write_safely("secrets", &format!("{SECRET}\n"));
                sandbox.write_safely("config.toml", &format!("{table}token-file = \"secrets\"\n"));
            }
            SecretPlace::Header => {
                sandbox.write_safely("secrets", &format!("# a key\nX-Api-Key: {SECRET}\n"));
                sandbox.write_safely(
                    "config.toml",
                    &format!("{table}header-file = \"secrets\"\n"),
                );
            }
        }
        Self {
            sandbox,
            place,
            server,
            nars,
            written: String::new(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let url = match self.place {
            SecretPlace::Url => self
                .server
                .url()
                .replace("://", &format!("://me:{SECRET}@")),
            _ => self.server.url(),
        };
        let mut command = self.sandbox.command(Kind::Guix, &url, arguments);
        command.env("SUBST_LOG", "trace");
        if matches!(self.place, SecretPlace::NetrcOption) {
            command
                .arg("--netrc-file")
                .arg(self.sandbox.path("secrets"));
        }
        command
    }

    fn run(&mut self, arguments: &[&str]) -> Run {
        let ended = run(self.command(arguments));
        self.written.push_str(&ended.stdout);
        self.written.push_str(&ended.stderr);
        ended
    }

    /// What was written to standard output, to standard error, and below the root, and what arrived
    /// at the other server.
    fn written(mut self) -> Written {
        let files: Vec<PathBuf> = files_below(&self.sandbox.root(), "");
        assert!(!files.is_empty());
        for file in files.iter().filter(|file| file.is_file()) {
            let bytes = std::fs::read(file).unwrap();
            self.written.push_str(&String::from_utf8_lossy(&bytes));
        }
        Written(self.written)
    }
}

/// Two servers of one host, which are told apart by their paths.
#[test]
fn a_token_is_not_for_another_server_of_the_same_host() {
    let server = Server::start(|request| {
        let mut request = request.clone();
        let path = request
            .path
            .strip_prefix("/ours")
            .or(request.path.strip_prefix("/other"));
        request.path = path.unwrap_or_default().to_owned();
        Reply::file(&Kind::Guix.directory(), &request)
    });
    let sandbox = Sandbox::new();
    sandbox.write_safely("secrets", SECRET);
    let table = format!(
        "[[server]]\nurl = \"{}/ours\"\ntoken-file = \"secrets\"\n",
        server.url()
    );
    sandbox.write_safely("config.toml", &table);
    let urls = format!("{0}/ours {0}/other", server.url());
    run(sandbox.command(
        Kind::Guix,
        &urls,
        &["query", "--cache-miss-report", &item("tools")],
    ))
    .exits(0);

    let has_token = |part: &str| -> Vec<bool> {
        let requests = server.requests().into_iter();
        let requests = requests.filter(|request| request.path.starts_with(part));
        requests
            .map(|request| request.has("authorization", &format!("Bearer {SECRET}")))
            .collect()
    };
    let (ours, other) = (has_token("/ours/"), has_token("/other/"));
    assert!(!ours.is_empty() && ours.iter().all(|it| *it), "{ours:?}");
    assert!(
        !other.is_empty() && !other.iter().any(|it| *it),
        "{other:?}"
    );
}

#[test]
fn a_secret_reaches_its_server_and_nothing_else() {
    for place in [
        SecretPlace::Url,
        SecretPlace::NetrcOfHome,
        SecretPlace::NetrcOption,
        SecretPlace::Token,
        SecretPlace::Header,
    ] {
        let mut runs = PrivateRuns::new(place);
        let tools = item("tools");
        runs.run(&["query", "--json", "--closure", &tools]).exits(0);
        runs.run(&["query", "--cache-miss-report", &tools]).exits(0);
        runs.run(&["fetch", "--dry-run", "--json", &tools]).exits(0);
        runs.run(&["fetch", "--progress", "json", &tools]).exits(0);
        runs.run(&["servers", "--json"]).exits(0);
        runs.run(&["cache", "list"]).exits(0);
        runs.run(&["cache", "info"]).exits(0);

        let (name, value) = expected_field(place);
        let requests = runs.server.requests();
        assert!(requests.iter().any(|it| it.path.starts_with("/nar/")));
        assert!(requests.iter().all(|it| it.has(name, &value)), "{place:?}");
        let elsewhere = format!("{:?}", runs.nars.requests());
        assert!(elsewhere.contains(SIGNATURE) && !elsewhere.contains(name));
        let elsewhere = Written(elsewhere.replace(SIGNATURE, ""));
        elsewhere.assert_secret("the other server");
        runs.written().assert_secret(&format!("{place:?}"));
    }
}

#[test]
fn a_failure_does_not_show_the_secret() {
    for place in [SecretPlace::Url, SecretPlace::Token, SecretPlace::Header] {
        let mut runs = PrivateRuns::new(place);
        let tools = item("tools");
        // The object store refuses what is not signed.
        runs.nars = Arc::new(Server::start(|_| Reply::new("403 Forbidden", "")));
        let (name, value) = expected_field(place);
        runs.server = private_server(name, value, Arc::clone(&runs.nars));
        if !matches!(place, SecretPlace::Url) {
            let path = runs.sandbox.path("config.toml");
            let config = std::fs::read_to_string(&path).unwrap();
            let (_, rest) = config.split_once("\"\n").unwrap();
            let url = runs.server.url();
            let config = format!("[[server]]\nurl = \"{url}\"\n{rest}");
            runs.sandbox.write_safely("config.toml", &config);
        }
        let target = format!("redirected to {}/nar/", runs.nars.url());
        runs.run(&["fetch", &tools]).exits(4).says(&target);
        runs.run(&["fetch", "--json", &tools]).exits(4);
        runs.written().assert_secret(&format!("{place:?}"));
    }
}

#[test]
fn without_a_password_the_error_says_that_one_is_required() {
    let mut runs = PrivateRuns::new(SecretPlace::Token);
    runs.sandbox.write_safely("config.toml", "");
    let tools = item("tools");
    let ended = runs.run(&["fetch", &tools]).exits(4);
    ended
        .says("status 401: it requires a password or token")
        .says("`token-file`");
    // The failure is not kept for the next run, which has the token.
    let url = runs.server.url();
    let config = format!("[[server]]\nurl = \"{url}\"\ntoken-file = \"secrets\"\n");
    runs.sandbox.write_safely("config.toml", &config);
    runs.run(&["fetch", &tools]).exits(0);
}

#[test]
fn lookups_that_are_redirected_take_no_secret_along() {
    let other = Arc::new(Server::of(Kind::Guix.directory()));
    let target = Arc::clone(&other);
    let value = format!("Bearer {SECRET}");
    let server = Server::start(move |request| {
        assert!(request.has("authorization", &value));
        let location = format!("Location: {}{}", target.url(), request.path);
        Reply::new("307 There", "").header(&location)
    });
    let sandbox = Sandbox::new();
    sandbox.write_safely("secrets", SECRET);
    let url = server.url();
    let config = format!("[[server]]\nurl = \"{url}\"\ntoken-file = \"secrets\"\n");
    sandbox.write_safely("config.toml", &config);
    sandbox.subst(&url, &["fetch", &item("tools")]).exits(0);
    let requests = other.requests();
    assert!(requests.iter().any(|it| it.path.ends_with(".narinfo")));
    assert!(requests.iter().any(|it| it.path.starts_with("/nar/")));
    let shown = format!("{requests:?}");
    assert!(
        !shown.contains(SECRET) && !shown.contains("authorization"),
        "{shown}"
    );
}

#[test]
fn files_of_secrets_that_cannot_be_used_are_errors_that_do_not_quote_them() {
    let sandbox = Sandbox::new();
    sandbox.write_safely("two", &format!("Bearer {SECRET}"));
    sandbox.write_safely("empty", "\n");
    sandbox.write_safely("host", &format!("Host: {SECRET}\n"));
    sandbox.write_safely("line", &format!("\n{SECRET}\n"));
    sandbox.write_safely("binary", &format!("X-Key: {SECRET}\u{7f}\n"));
    for (setting, reason) in [
        ("token-file = \"none\"", "No such file"),
        ("token-file = \"two\"", "a token and nothing else"),
        ("token-file = \"empty\"", "a token and nothing else"),
        ("token-file = \"/dev/zero\"", "too large"),
        (
            "header-file = \"host\"",
            "line 1: this header field cannot be set",
        ),
        ("header-file = \"line\"", "line 2 is not `NAME: VALUE`"),
        (
            "header-file = \"binary\"",
            "line 1: the value has characters",
        ),
        ("client-cert-file = \"two\"", "no certificate in PEM"),
        ("client-key-file = \"two\"", "needs a client-cert-file"),
    ] {
        let config = format!("[[server]]\nurl = \"http://127.0.0.1:1\"\n{setting}\n");
        sandbox.write_safely("config.toml", &config);
        let ended = run(sandbox.bare(&["servers"])).exits(2);
        let place = format!("{}:1: server: ", sandbox.path("config.toml").display());
        let ended = ended.says(&place).says(reason);
        Written(format!("{}{}", ended.stdout, ended.stderr)).assert_secret(setting);
    }
    let mut missing = sandbox.bare(&["servers", "--netrc-file", "none"]);
    missing.env_remove("SUBST_CONFIG");
    run(missing)
        .exits(2)
        .says("--netrc-file: cannot read none: No such file");
}

#[test]
fn certificates_are_named_by_variables_and_settings() {
    let authority = Authority::new();
    let backend = Server::of(Kind::Guix.directory());
    let front = TlsFront::before(&backend, &authority, Clients::Anonymous);
    let sandbox = Sandbox::new();
    let file = sandbox.write_safely("authority.pem", &authority.pem());
    let directory = sandbox.write_config("certificates/a.pem", &authority.pem());
    let directory = directory.parent().unwrap().to_owned();
    let tools = item("tools");

    sandbox
        .subst(&front.url(), &["query", &tools])
        .exits(4)
        .says("SSL_CERT_FILE");

    let mut empty = sandbox.command(Kind::Guix, &front.url(), &["query", &tools]);
    empty.env("SSL_CERT_FILE", "").env("SSL_CERT_DIR", "");
    let empty = run(empty).exits(4);
    let unset = sandbox.subst(&front.url(), &["query", &tools]).exits(4);
    let [empty, unset] = [empty, unset].map(|run| run.stderr.lines().next().unwrap().to_owned());
    assert_eq!(empty, unset);

    for (name, path) in [
        ("SSL_CERT_FILE", &file),
        ("NIX_SSL_CERT_FILE", &file),
        ("SSL_CERT_DIR", &directory),
    ] {
        let mut command = sandbox.command(Kind::Guix, &front.url(), &["query", "--refresh"]);
        command.arg(&tools).env(name, path);
        run(command).exits(0);
        let mut command = sandbox.command(Kind::Guix, &front.url(), &["fetch", "--refresh"]);
        command.arg(&tools).env(name, "/nothing.pem");
        let expected = format!("/nothing.pem ({name}): No such file");
        run(command).exits(5).says(&expected);
        let mut command = sandbox.command(Kind::Guix, &front.url(), &["query", "--refresh"]);
        command
            .arg("--cache-miss-report")
            .arg(&tools)
            .env(name, "/nothing.pem");
        let report = run(command).exits(5);
        assert!(report.stdout.contains("/nothing.pem"), "{report:?}");
    }
}

#[test]
fn a_client_certificate_is_sent_to_its_server() {
    let authority = Authority::new();
    let backend = Server::of(Kind::Guix.directory());
    let front = TlsFront::before(&backend, &authority, Clients::Certified);
    let sandbox = Sandbox::new();
    let file = sandbox.write_safely("authority.pem", &authority.pem());
    let (certificate, key) = authority.sign("client");
    sandbox.write_safely("client.pem", &certificate.pem());
    sandbox.write_safely("client.key", &key.serialize_pem());
    let both = format!("{}{}", certificate.pem(), key.serialize_pem());
    sandbox.write_safely("both.pem", &both);
    let (_, other_key) = authority.sign("client");
    sandbox.write_safely("other.key", &other_key.serialize_pem());

    let url = front.url();
    let table = format!("[[server]]\nurl = \"{url}\"\n");
    for (files, code, text) in [
        ("", 4, "client certificate"),
        (
            "client-cert-file = \"client.pem\"\nclient-key-file = \"other.key\"",
            2,
            "the private key does not fit the certificate",
        ),
        (
            "client-cert-file = \"client.pem\"",
            2,
            "no unencrypted private key",
        ),
        (
            "client-cert-file = \"client.pem\"\nclient-key-file = \"client.key\"",
            0,
            "",
        ),
        ("client-cert-file = \"both.pem\"", 0, ""),
    ] {
        if sandbox.root().exists() {
            sandbox.remove_root();
        }
        sandbox.write_safely("config.toml", &format!("{table}{files}\n"));
        let mut command = sandbox.command(Kind::Guix, &url, &["fetch", &item("tools")]);
        command.env("SSL_CERT_FILE", &file);
        run(command).exits(code).says(text);
    }
}
