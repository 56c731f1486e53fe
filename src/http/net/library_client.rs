//! The HTTP library's client, for nars and for redirects of lookups: HTTP/1.1, no redirects.
//!
//! HTTP/1.1 although HTTP/2 is there: the default window of HTTP/2 holds a distant server to a
//! tenth of what the line gives. The faults of heads that it accepts are those that lookups accept. The library is told everything, so that it looks at neither the
//! environment nor a certificate store of its own (it would refuse to start without one).

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use url::Url;

use super::address::{port, resolve_failure};
use super::blocking;
use super::tls::{Tls, TlsConfigs};
use super::tls_failure::{failure_kind, is_about_client};
use crate::http::error::{Cause, HttpError, HttpErrorKind};
use crate::http::options::{HEADER_FIELDS_MAX, Options, Timeouts};
use crate::http::proxies::Proxies;
use crate::sync::lock;

/// Clients of the HTTP library: a client has one set of connections, one client certificate or none, and
/// one time to connect.
#[derive(Debug, Default)]
pub(super) struct LibraryClients(Mutex<Vec<LibraryClient>>);

#[derive(Debug)]
struct LibraryClient {
    tls: Arc<ClientConfig>,
    connect_timeout: Duration,
    client: reqwest::Client,
}

impl LibraryClients {
    /// The client for connections with `tls` that are made within `connect_timeout`.
    pub(super) fn client_for(
        &self,
        tls: &TlsConfigs,
        connect_timeout: Duration,
        options: &Options,
    ) -> Result<reqwest::Client, HttpError> {
        let tls = &tls.http1;
        let mut clients = lock(&self.0);
        let known = clients
            .iter()
            .find(|it| Arc::ptr_eq(&it.tls, tls) && it.connect_timeout == connect_timeout);
        if let Some(known) = known {
            return Ok(known.client.clone());
        }

        let client = build(options, tls, connect_timeout, options.proxies.clone())?;
        clients.push(LibraryClient {
            tls: Arc::clone(tls),
            connect_timeout,
            client: client.clone(),
        });
        Ok(client)
    }
}

/// A client that uses no proxy.
pub(in crate::http) fn direct(options: &Options, tls: &Tls) -> Result<reqwest::Client, HttpError> {
    let tls = &tls.anonymous().http1;
    build(options, tls, options.connect_timeout, Proxies::default())
}

fn build(
    options: &Options,
    tls: &ClientConfig,
    connect_timeout: Duration,
    proxies: Proxies,
) -> Result<reqwest::Client, HttpError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .http1_only()
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_max_headers(HEADER_FIELDS_MAX)
        .no_proxy()
        .proxy(reqwest::Proxy::custom(move |url| {
            proxies.for_url(url).map(proxy_for_library)
        }))
        .redirect(Policy::none())
        .referer(false)
        .user_agent(&options.user_agent)
        .connect_timeout(connect_timeout)
        .dns_resolver(Arc::new(Resolver))
        .build()
        .map_err(|cause| HttpError::setup("the HTTP client", cause))
}

/// The URL of `proxy` for the library: a SOCKS proxy resolves names, as it does for lookups, and has a default port, which the
/// library does not know.
fn proxy_for_library(proxy: &Url) -> Url {
    let mut proxy = proxy.clone();
    if proxy.port().is_none() {
        // This and the other change fail only for URLs that cannot be those of a proxy.
        let _ = proxy.set_port(port(&proxy));
    }
    if proxy.scheme() == "socks5" {
        let _ = proxy.set_scheme("socks5h");
    }
    proxy
}

/// Resolves host names for the library, which would panic without a thread to do it.
struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The library puts the port in.
            let found = blocking::resolve(name.as_str().to_owned(), 0).await;
            let addresses = found.map_err(|error| resolve_failure(name.as_str(), error))?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Why a request failed. The library's own layers are left out of the chain of causes where a cause from
/// the system or from TLS lies below them.
pub(in crate::http) fn failure(error: reqwest::Error, timeouts: Timeouts) -> HttpErrorKind {
    let error = error.without_url();
    let is_connect = error.is_connect();
    if error.is_timeout() {
        return if is_connect {
            HttpErrorKind::ConnectTimeout(timeouts.connect)
        } else {
            HttpErrorKind::Stalled(timeouts.stall)
        };
    }

    let cause: Cause = match root_cause(&error) {
        Some(RootCause::Tls(tls)) if is_connect || is_about_client(&tls) => {
            return failure_kind(tls);
        }
        Some(RootCause::Tls(tls)) => Arc::new(tls),
        Some(RootCause::System(code)) => Arc::new(io::Error::from_raw_os_error(code)),
        Some(RootCause::Resolve(kind)) => Arc::new(kind),
        None => Arc::new(io::Error::other(innermost_text(&error))),
    };
    if is_connect {
        HttpErrorKind::Connect(cause)
    } else {
        HttpErrorKind::Lost(cause)
    }
}

/// Why a body broke. An end without an error of the system means that the server closed the
/// connection too early.
pub(in crate::http) fn body_failure(error: reqwest::Error, timeouts: Timeouts) -> HttpErrorKind {
    match root_cause(&error) {
        None if !error.is_timeout() => HttpErrorKind::Closed,
        _ => failure(error, timeouts),
    }
}

/// What the cause of all others says: the library's layers above it repeat each other.
fn innermost_text(error: &reqwest::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

enum RootCause {
    Tls(rustls::Error),
    Resolve(HttpErrorKind),
    /// The system's error number.
    System(i32),
}

fn root_cause(error: &(dyn Error + 'static)) -> Option<RootCause> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(RootCause::Tls(tls.clone()));
    }
    if let Some(HttpErrorKind::Resolve { host, cause }) = error.downcast_ref() {
        return root_cause(&**cause).or_else(|| {
            Some(RootCause::Resolve(HttpErrorKind::Resolve {
                host: Arc::clone(host),
                cause: Arc::clone(cause),
            }))
        });
    }
    let Some(io) = error.downcast_ref::<io::Error>() else {
        return error.source().and_then(root_cause);
    };
    match (io.raw_os_error(), io.get_ref()) {
        (Some(code), _) => Some(RootCause::System(code)),
        (None, Some(inner)) => root_cause(inner),
        (None, None) => None,
    }
}
