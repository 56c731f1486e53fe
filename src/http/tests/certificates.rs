//! Which certificates of servers are accepted, and what the failures say.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use url::Url;

use super::tls::{TlsServer, forward, named_file};
use crate::format::server_url::ServerUrl;
use crate::http::error::{HttpErrorClass, HttpErrorKind};
use crate::http::testing::*;
use crate::http::*;

/// What kind of certificate a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CertificateKind {
    SelfSigned,
    /// Self-signed, and marked as an authority.
    OwnAuthority,
    /// Signed by an authority that is not trusted.
    SignedByAnother,
}

const KINDS: [CertificateKind; 3] = [
    CertificateKind::SelfSigned,
    CertificateKind::OwnAuthority,
    CertificateKind::SignedByAnother,
];

fn certificate(kind: CertificateKind, name: &str, years: [i32; 2]) -> (Certificate, KeyPair) {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    [params.not_before, params.not_after] = years.map(|year| rcgen::date_time_ymd(year, 1, 1));
    if kind == CertificateKind::OwnAuthority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }

    let key = KeyPair::generate().unwrap();
    let made = if kind == CertificateKind::SignedByAnother {
        let issuer = CertificateParams::new(["authority".to_owned()]).unwrap();
        let issuer = Issuer::new(issuer, KeyPair::generate().unwrap());
        params.signed_by(&key, &issuer)
    } else {
        params.self_signed(&key)
    };
    (made.unwrap(), key)
}

/// A server with a certificate, and a directory with the certificate in `server.pem`.
struct CertifiedServer {
    _backend: TestServer,
    server: TlsServer,
    dir: TempDir,
}

impl CertifiedServer {
    fn start((certificate, key): (Certificate, KeyPair)) -> Self {
        let backend = TestServer::answering(correct);
        let serve = forward(backend.address);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("server.pem"), certificate.pem()).unwrap();
        Self {
            server: TlsServer::start_with(&certificate, &key, &["http/1.1"], serve),
            _backend: backend,
            dir,
        }
    }

    /// How a lookup and the request of a nar fail, which has to be in the same way; `None` if they
    /// do not.
    fn failure(&self, paths: &[CertificatePath]) -> Option<HttpErrorKind> {
        failure_at(&self.server.url(), paths)
    }
}

fn named_directory(path: &Path) -> Vec<CertificatePath> {
    vec![CertificatePath {
        path: path.to_owned(),
        is_directory: true,
        named_by: "SSL_CERT_DIR".to_owned(),
    }]
}

fn failure_at(url: &str, paths: &[CertificatePath]) -> Option<HttpErrorKind> {
    let options = Options {
        certificate_paths: paths.to_vec(),
        ..quick()
    };
    let spec = ServerSpec::new(ServerUrl::parse(url).unwrap());
    let mut results = look_up(options.clone(), spec, &items(1));
    let nar = Client::new(options)
        .unwrap()
        .nar(NarRequest::new(Url::parse(&format!("{url}/nar")).unwrap()));
    let lookup = results.down.pop().map(|error| text(error.kind()));
    let nar = nar.err().map(|error| error.kind().clone());
    assert_eq!(lookup, nar.as_ref().map(text));
    nar
}

/// A failure and its causes.
fn text(kind: &HttpErrorKind) -> String {
    let url = Url::parse("https://example.org").unwrap();
    HttpError::new(&url, kind.clone()).without_url().to_string()
}

#[track_caller]
fn assert_failure(failure: Option<HttpErrorKind>, parts: &[&str]) {
    let text = failure.as_ref().map(text).expect("it has to fail");
    for part in parts {
        assert!(text.contains(part), "expected `{part}` in: {text}");
    }
}

#[test]
fn a_certificate_that_the_user_named_counts_whoever_signed_it() {
    for kind in KINDS {
        let server = CertifiedServer::start(certificate(kind, "127.0.0.1", [2020, 2999]));
        let file = named_file(&server.dir.path().join("server.pem"));
        let failure = server.failure(&file);
        assert!(failure.is_none(), "{kind:?}: {}", text(&failure.unwrap()));

        let directory = named_directory(server.dir.path());
        assert!(server.failure(&directory).is_none(), "{kind:?}");
        assert_failure(server.failure(&[]), &["SSL_CERT_FILE", "--insecure-tls"]);
    }
}

#[test]
fn a_certificate_that_the_user_named_has_to_have_valid_dates() {
    for kind in KINDS {
        let server = CertifiedServer::start(certificate(kind, "127.0.0.1", [2019, 2020]));
        let file = named_file(&server.dir.path().join("server.pem"));
        let expected = [
            "expired on 2020-01-01 (this machine's clock says 2",
            "--insecure-tls",
        ];
        assert_failure(server.failure(&file), &expected);

        let server = CertifiedServer::start(certificate(kind, "127.0.0.1", [2998, 2999]));
        let file = named_file(&server.dir.path().join("server.pem"));
        let expected = [
            "not valid before 2998-01-01",
            "Set the clock if it is wrong",
        ];
        assert_failure(server.failure(&file), &expected);
    }
}

#[test]
fn a_certificate_that_the_user_named_has_to_be_for_the_host() {
    for kind in KINDS {
        let server = CertifiedServer::start(certificate(kind, "example.org", [2020, 2999]));
        let file = named_file(&server.dir.path().join("server.pem"));
        let expected = "its TLS certificate is not for 127.0.0.1, but for example.org. Use one";
        assert_failure(server.failure(&file), &[expected]);
    }
}

#[test]
fn a_named_file_that_cannot_be_used_is_an_error_that_names_it() {
    let made = certificate(CertificateKind::SelfSigned, "127.0.0.1", [2020, 2999]);
    let der = made.0.der().to_vec();
    let server = CertifiedServer::start(made);
    let dir = server.dir.path();
    for (name, bytes) in [
        ("empty.pem", &b""[..]),
        ("der.pem", &der),
        ("cut.pem", b"-----BEGIN CERTIFICATE-----\nMIIB\n"),
    ] {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    let good = named_file(&dir.join("server.pem"));
    for (wrong, reason) in [
        (named_file(&dir.join("none.pem")), "No such file"),
        (named_file(dir), "Is a directory"),
        (named_directory(&dir.join("none")), "No such file"),
        (named_file(&dir.join("empty.pem")), "is not a PEM file"),
        (named_file(&dir.join("der.pem")), "is not a PEM file"),
        (named_file(&dir.join("cut.pem")), "is not a PEM file"),
    ] {
        // A certificate that is good does not make up for another one that is not.
        let paths = [&good[..], &wrong].concat();
        let failure = server.failure(&paths);
        let class = failure.as_ref().map(HttpErrorKind::class);
        assert_eq!(class, Some(HttpErrorClass::Local), "{reason}");
        let path = wrong[0].path.display().to_string();
        assert_failure(failure, &[reason, &path, &wrong[0].named_by]);
    }
}

#[test]
fn a_directory_may_have_files_that_are_no_certificates() {
    let made = certificate(CertificateKind::OwnAuthority, "127.0.0.1", [2020, 2999]);
    let server = CertifiedServer::start(made);
    std::fs::write(server.dir.path().join("README"), "not a certificate").unwrap();
    std::os::unix::fs::symlink("nothing", server.dir.path().join("broken.pem")).unwrap();
    let directory = named_directory(server.dir.path());
    assert!(server.failure(&directory).is_none());
}

#[test]
fn an_old_server_is_said_to_have_no_version_in_common() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            // A fatal alert: the protocol version is not supported.
            let _ = stream.write_all(&[0x15, 3, 1, 0, 2, 2, 70]);
        }
    });
    let expected = "the server accepts no TLS version and cipher of this program: it needs TLS 1.2";
    assert_failure(failure_at(&url, &[]), &[expected]);
}
