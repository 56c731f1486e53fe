//! The messages of failed TLS handshakes: what is wrong with the certificate, and what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, OtherError};

use super::trusted_certificates::CertificatesError;
use crate::http::error::HttpErrorKind;

/// A failure of TLS, with a text of our own.
#[derive(Debug)]
pub(super) struct TlsFailure(rustls::Error);

/// Why a handshake failed.
pub(super) fn handshake_failure(error: io::Error) -> HttpErrorKind {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(tls) => failure_kind(rustls::Error::clone(tls)),
        None => HttpErrorKind::Tls(Arc::new(error)),
    }
}

/// Why a connection ended in the middle. A server that wants a client certificate says so only when
/// the handshake is over for the client.
pub(in crate::http) fn lost_connection(error: io::Error) -> HttpErrorKind {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(tls) if is_about_client(tls) => failure_kind(rustls::Error::clone(tls)),
        _ => HttpErrorKind::Lost(Arc::new(error)),
    }
}

/// Whether the server ended the connection because of the client's certificate.
pub(super) fn is_about_client(error: &rustls::Error) -> bool {
    let rustls::Error::AlertReceived(alert) = error else {
        return false;
    };
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

/// What failed, if TLS failed with `error`.
pub(super) fn failure_kind(error: rustls::Error) -> HttpErrorKind {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = &error
        && is_about_files(cause.downcast_ref())
    {
        return HttpErrorKind::Setup(Arc::clone(cause));
    }
    HttpErrorKind::Tls(Arc::new(TlsFailure(error)))
}

/// Whether files that the user named cannot be used.
fn is_about_files(error: Option<&CertificatesError>) -> bool {
    matches!(
        error,
        Some(CertificatesError::Read { .. } | CertificatesError::NotPem { .. })
    )
}

impl Error for TlsFailure {}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            rustls::Error::InvalidCertificate(reason) => write_certificate_failure(f, reason),
            rustls::Error::InvalidMessage(_) => {
                f.write_str("the server does not speak TLS (is it an http:// server?)")
            }
            rustls::Error::PeerIncompatible(_) => f.write_str(NOTHING_IN_COMMON),
            rustls::Error::AlertReceived(alert) => write_alert(f, &self.0, *alert),
            other => other.fmt(f),
        }
    }
}

/// What the server says when it ends the connection itself.
fn write_alert(
    f: &mut fmt::Formatter<'_>,
    error: &rustls::Error,
    alert: AlertDescription,
) -> fmt::Result {
    match alert {
        AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity
        | AlertDescription::HandshakeFailure => f.write_str(NOTHING_IN_COMMON),
        AlertDescription::CertificateRequired => f.write_str(
            "the server requires a client certificate: `client-cert-file` in a [[server]] table of \
             the settings file names one",
        ),
        _ if is_about_client(error) => write!(
            f,
            "the server does not accept the client certificate ({alert:?})"
        ),
        AlertDescription::UnrecognisedName => {
            f.write_str("the server has no certificate for this host name")
        }
        other => write!(f, "the server ended the connection ({other:?})"),
    }
}

fn write_certificate_failure(f: &mut fmt::Formatter<'_>, reason: &CertificateError) -> fmt::Result {
    match reason {
        // Another authority may have the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => write!(
            f,
            "its TLS certificate is from an unknown authority. Name its CA file with \
             SSL_CERT_FILE, or {WITHOUT_VERIFICATION}"
        ),
        CertificateError::ExpiredContext { time, not_after } => write!(
            f,
            "its TLS certificate expired on {} (this machine's clock says {}). {DATES_ADVICE}, \
             or {WITHOUT_VERIFICATION}",
            date(*not_after),
            date(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => write!(
            f,
            "its TLS certificate is not valid before {} (this machine's clock says {}). \
             {DATES_ADVICE}, or {WITHOUT_VERIFICATION}",
            date(*not_before),
            date(*time)
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => write_wrong_name(f, &expected.to_str(), presented),
        CertificateError::Other(OtherError(other)) => match other.downcast_ref() {
            Some(webpki::Error::CaUsedAsEndEntity) => write!(
                f,
                "its TLS certificate is that of an authority itself, and not a trusted one. Name a \
                 file with the certificate with SSL_CERT_FILE, or {WITHOUT_VERIFICATION}"
            ),
            _ if other.is::<CertificatesError>() => write!(f, "{other}"),
            _ => write!(f, "its TLS certificate is not acceptable: {other}"),
        },
        other => write!(f, "its TLS certificate is not acceptable: {other}"),
    }
}

fn write_wrong_name(
    f: &mut fmt::Formatter<'_>,
    expected: &str,
    presented: &[String],
) -> fmt::Result {
    if presented.is_empty() {
        return write!(
            f,
            "its TLS certificate names no host (subjectAltName), so it is not for {expected}. The \
             server needs another one, or {WITHOUT_VERIFICATION}"
        );
    }
    let names = presented.iter().take(NAMES_MAX);
    let names: Vec<&str> = names.map(|name| host_name(name)).collect();
    let more = match presented.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    write!(
        f,
        "its TLS certificate is not for {expected}, but for {}{more}. Use one of these names in the \
         URL, or {WITHOUT_VERIFICATION}",
        names.join(", ").escape_debug()
    )
}

/// As many names of a certificate are shown.
const NAMES_MAX: usize = 8;

/// The library writes names as `DnsName("example.org")` and `IpAddress(192.0.2.1)`.
fn host_name(presented: &str) -> &str {
    let inner = presented
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"')
}

const NOTHING_IN_COMMON: &str = "the server accepts no TLS version and cipher of this program: it \
    needs TLS 1.2 or 1.3 with AES-GCM or ChaCha20, or it requires a client certificate";

const WITHOUT_VERIFICATION: &str = "use --insecure-tls (signatures are still verified)";

const DATES_ADVICE: &str = "Set the clock if it is wrong, wait for the server's new certificate";

/// The date of `time` as `2026-11-26`.
fn date(time: UnixTime) -> String {
    // `Thu, 26 Nov 2026 16:40:00 GMT`; years beyond 9999 do not exist there.
    let last = Duration::from_secs(253_402_300_799);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()).min(last);
    let text = httpdate::fmt_http_date(time);
    let fields: Vec<&str> = text.split([' ', ',']).filter(|s| !s.is_empty()).collect();
    let [_, day, month, year, ..] = fields[..] else {
        return text;
    };
    let month = MONTHS.iter().position(|name| *name == month);
    format!("{year}-{:02}-{day}", month.unwrap_or_default() + 1)
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reason: CertificateError) -> String {
        TlsFailure(reason.into()).to_string()
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn certificate_failures_name_dates_and_the_way_out() {
        let expired = CertificateError::ExpiredContext {
            time: at(1_795_698_190),
            not_after: at(1_793_059_200),
        };
        assert_eq!(
            text(expired),
            "its TLS certificate expired on 2026-10-27 (this machine's clock says 2026-11-26). Set the \
             clock if it is wrong, wait for the server's new certificate, or use --insecure-tls \
             (signatures are still verified)"
        );
        let early = CertificateError::NotValidYetContext {
            time: at(0),
            not_before: at(u64::MAX),
        };
        let early = text(early);
        assert!(
            early.starts_with(
                "its TLS certificate is not valid before 9999-12-31 \
                 (this machine's clock says 1970-01-01). Set the clock"
            ),
            "{early}"
        );
        assert!(text(CertificateError::UnknownIssuer).contains("SSL_CERT_FILE"));
        let not_tls = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert!(
            TlsFailure(not_tls)
                .to_string()
                .contains("does not speak TLS")
        );
    }
}
