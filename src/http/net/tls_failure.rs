//! The messages of failed TLS handshakes: what is wrong with the certificate, and what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use rustls::pki_types::UnixTime;

use crate::http::error::HttpErrorKind;

/// A failure of TLS, with a text of our own.
#[derive(Debug)]
pub(super) struct TlsFailure(pub(super) rustls::Error);

/// Why a handshake failed.
pub(super) fn handshake_failure(error: io::Error) -> HttpErrorKind {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    HttpErrorKind::Tls(match tls {
        Some(tls) => Arc::new(TlsFailure(rustls::Error::clone(tls))),
        None => Arc::new(error),
    })
}

impl Error for TlsFailure {}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            rustls::Error::InvalidCertificate(reason) => write_certificate_failure(f, reason),
            rustls::Error::InvalidMessage(_) => {
                f.write_str("the server does not speak TLS (is it an http:// server?)")
            }
            other => other.fmt(f),
        }
    }
}

fn write_certificate_failure(f: &mut fmt::Formatter<'_>, reason: &CertificateError) -> fmt::Result {
    match reason {
        CertificateError::UnknownIssuer => f.write_str(
            "its TLS certificate is from an unknown authority. Name its CA file with SSL_CERT_FILE, \
             or use --insecure-tls (signatures are still verified)",
        ),
        CertificateError::ExpiredContext { time, not_after } => write!(
            f,
            "its TLS certificate expired on {} (this machine's clock says {})",
            date(*not_after),
            date(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => write!(
            f,
            "its TLS certificate is not valid before {} (this machine's clock says {})",
            date(*not_before),
            date(*time)
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => write!(
            f,
            "its TLS certificate is not for {}, but for {}",
            expected.to_str(),
            presented.join(", ").escape_debug()
        ),
        other => write!(f, "its TLS certificate is not acceptable: {other}"),
    }
}

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
            "its TLS certificate expired on 2026-10-27 (this machine's clock says 2026-11-26)"
        );
        let early = CertificateError::NotValidYetContext {
            time: at(0),
            not_before: at(u64::MAX),
        };
        assert_eq!(
            text(early),
            "its TLS certificate is not valid before 9999-12-31 \
             (this machine's clock says 1970-01-01)"
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
