//! Reads the certificates that are trusted: those that the user named, else the system's.
//!
//! What the user named has to be readable and to contain a certificate: with fewer certificates than
//! expected, servers would fail for a reason that no message names. In a directory, files that have
//! no certificates are left out.

use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls_native_certs::{CertificateResult, ErrorKind};

use crate::http::options::CertificatePath;

/// The trusted certificates.
#[derive(Debug)]
pub(super) struct TrustedCertificates {
    /// Those that are valid, as authorities.
    pub(super) authorities: RootCertStore,
    /// All of them, as they were read.
    pub(super) encoded: Vec<CertificateDer<'static>>,
}

/// Why there are no trusted certificates.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificatesError {
    /// A file or directory cannot be read.
    #[error("cannot read the trusted certificates in {} ({named_by})", .path.display())]
    Read {
        path: PathBuf,
        named_by: String,
        source: io::Error,
    },
    /// A file has no certificate, or is not PEM throughout.
    #[error(
        "{} ({named_by}) is not a PEM file of certificates; `openssl x509 -inform DER -in FILE` \
         converts a certificate in DER",
        .path.display()
    )]
    NotPem { path: PathBuf, named_by: String },
    /// The user named nothing, and the system has nothing.
    #[error(
        "this machine has no certificates of authorities. Install them (the package \
         ca-certificates or nss-certs), name a file of them with SSL_CERT_FILE, or use \
         --insecure-tls (signatures are still verified)"
    )]
    NoneOnSystem,
}

impl TrustedCertificates {
    /// Reads those in `paths`; without any, the system's.
    pub(super) fn read(paths: &[CertificatePath]) -> Result<Self, CertificatesError> {
        let encoded = if paths.is_empty() {
            read_system()
        } else {
            let mut encoded = Vec::new();
            for named in paths {
                encoded.extend(read_named(named)?);
            }
            encoded
        };

        let mut authorities = RootCertStore::empty();
        authorities.add_parsable_certificates(encoded.iter().cloned());
        if authorities.is_empty() && paths.is_empty() {
            return Err(CertificatesError::NoneOnSystem);
        }
        Ok(Self {
            authorities,
            encoded,
        })
    }
}

/// The system's certificates. The library's own search would read the environment.
fn read_system() -> Vec<CertificateDer<'static>> {
    let [file, directory] = [&SYSTEM_FILES[..], &SYSTEM_DIRECTORIES].map(first_existing);
    rustls_native_certs::load_certs_from_paths(file, directory).certs
}

fn first_existing(paths: &[&'static str]) -> Option<&'static Path> {
    let mut paths = paths.iter().map(|&path| Path::new(path));
    paths.find(|path| path.exists())
}

/// Where systems have all their certificates in one file.
const SYSTEM_FILES: [&str; 8] = [
    // Debian, Guix System, NixOS, Arch
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, the newer place first
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    // openSUSE
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    // Alpine
    "/etc/ssl/cert.pem",
    "/opt/etc/ssl/certs/ca-certificates.crt",
    // Nix on a system without any
    "/nix/var/nix/profiles/default/etc/ssl/certs/ca-bundle.crt",
];

/// Where systems have a file for each certificate.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

fn read_named(named: &CertificatePath) -> Result<Vec<CertificateDer<'static>>, CertificatesError> {
    let path = &named.path;
    if named.is_directory {
        path.read_dir().map_err(|error| read_error(named, error))?;
        return Ok(rustls_native_certs::load_certs_from_paths(None, Some(path)).certs);
    }

    let CertificateResult {
        certs, mut errors, ..
    } = rustls_native_certs::load_certs_from_paths(Some(path), None);
    match errors.pop().map(|error| error.kind) {
        Some(ErrorKind::Io { inner, .. }) => Err(read_error(named, inner)),
        None if has_usable(&certs) => Ok(certs),
        _ => Err(CertificatesError::NotPem {
            path: path.clone(),
            named_by: named.named_by.clone(),
        }),
    }
}

fn has_usable(certificates: &[CertificateDer<'static>]) -> bool {
    let mut store = RootCertStore::empty();
    let mut certificates = certificates.iter().cloned();
    certificates.any(|certificate| store.add(certificate).is_ok())
}

fn read_error(named: &CertificatePath, source: io::Error) -> CertificatesError {
    CertificatesError::Read {
        path: Path::to_owned(&named.path),
        named_by: named.named_by.clone(),
        source,
    }
}
