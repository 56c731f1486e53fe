//! What proves to servers who the user is: header fields, client certificates and signatures.
//!
//! Each belongs to one server, and is sent only to URLs with the scheme, host and port of that server,
//! whatever redirects and narinfos name. Where several servers share these, it is sent only to what is
//! below its own URL. Values of fields are marked as sensitive: `Debug` shows nothing of them, and
//! HTTP/2 keeps them out of its tables.

use std::cmp::Reverse;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use url::Url;

use super::net::address::{basic, basic_credentials};
use super::s3::signer::BucketSigner;
use crate::format::secret::Secret;
use crate::format::server_url::ServerUrl;

/// The credentials of all servers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials(Vec<ServerCredentials>);

/// The credentials of one server.
#[derive(Debug, Clone)]
pub(crate) struct ServerCredentials {
    server: ServerUrl,
    fields: HeaderMap,
    identity: Option<ClientIdentity>,
    signer: Option<Arc<BucketSigner>>,
}

/// Why a header field cannot be sent. Nothing of its value is quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialError {
    /// The name is not one.
    #[error("the name of a header field is invalid")]
    Name,
    /// The program sends it itself.
    #[error("this header field cannot be set: it belongs to the transfer itself")]
    Reserved,
    /// The value has control characters, line breaks, or characters that are not ASCII.
    #[error("the value has characters that are not allowed in a header field")]
    Value,
}

/// Fields that say what is requested and how it is transferred.
const RESERVED: [&str; 15] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "if-range",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

impl Credentials {
    /// Adds what is for one more server.
    pub(crate) fn add(&mut self, server: ServerCredentials) {
        self.0.push(server);
    }

    /// The fields to send with a request for `url`: the user name and password in it, and what is
    /// for its server. Of two fields with one name, that of the server with the longer URL counts.
    pub(crate) fn fields(&self, url: &Url) -> HeaderMap {
        let mut fields = HeaderMap::new();
        let basic = basic_credentials(url);
        if let (Some(basic), Some(_)) = (&basic, url.password()) {
            fields.insert(AUTHORIZATION, basic.clone());
        }
        for (_, server) in self.servers_of(url) {
            for (name, value) in &server.fields {
                let is_of_another = name == AUTHORIZATION && !server.is_user_of(url);
                if !is_of_another && !fields.contains_key(name) {
                    fields.insert(name, value.clone());
                }
            }
        }
        // The password of a user name without one is among what is for the server, if there is one.
        if let Some(basic) = basic {
            fields.entry(AUTHORIZATION).or_insert(basic);
        }
        fields
    }

    /// What signs the lookups on `server`, if it is a bucket or in one.
    pub(super) fn signer_of(&self, server: &ServerUrl) -> Option<&Arc<BucketSigner>> {
        let own = self.0.iter().find(|it| it.is_for(server));
        own.and_then(|own| own.signer.as_ref())
            .or_else(|| self.signers_for(server.base()).into_iter().next())
    }

    /// What signs requests for `url`, if it is in a bucket: servers with different access keys may be one bucket, so
    /// there may be several. Those that the object store has allowed something come first.
    pub(super) fn signers_for(&self, url: &Url) -> Vec<&Arc<BucketSigner>> {
        let servers = self.0.iter();
        let signers = servers.filter_map(|it| Some((it.server.base(), it.signer.as_ref()?)));
        let covering = signers.filter(|(_, signer)| signer.covers(url));
        let mut covering: Vec<_> = covering
            .map(|(base, signer)| (base.path().len(), signer))
            .collect();

        let nearest = covering.iter().map(|(length, _)| *length).max();
        covering.retain(|(length, _)| Some(*length) == nearest);
        covering.sort_by_key(|(_, signer)| !signer.was_allowed());
        covering.into_iter().map(|(_, signer)| signer).collect()
    }

    /// The files with tokens that are read whenever access keys are renewed.
    pub(crate) fn token_files(&self) -> impl Iterator<Item = &Path> {
        let signers = self.0.iter().filter_map(|it| it.signer.as_ref());
        signers.filter_map(|signer| signer.token_file())
    }

    /// The number of the server whose client certificate a connection to `url` uses.
    pub(super) fn identity_of(&self, url: &Url) -> Option<usize> {
        let servers = self.servers_of(url).into_iter();
        let mut numbers = servers.map(|(number, _)| number);
        numbers.find(|&number| self.0[number].identity.is_some())
    }

    /// The client certificate for each server.
    pub(super) fn identities(&self) -> impl Iterator<Item = Option<&ClientIdentity>> {
        self.0.iter().map(|server| server.identity.as_ref())
    }

    /// The servers whose credentials are for `url`, the nearest first, and their numbers.
    fn servers_of(&self, url: &Url) -> Vec<(usize, &ServerCredentials)> {
        let all = self.0.iter().enumerate();
        let same_origin = all.filter(|(_, it)| it.server.base().origin() == url.origin());
        let mut servers: Vec<_> = same_origin.collect();
        if servers.len() > 1 {
            servers.retain(|(_, it)| it.server.contains(url));
            servers.sort_by_key(|(_, it)| Reverse(it.server.base().path().len()));
        }
        servers
    }
}

impl ServerCredentials {
    /// What the URL of the server says: user name and password, or nothing.
    pub(crate) fn new(server: ServerUrl) -> Self {
        let basic = basic_credentials(server.base());
        let basic = basic.map(|value| (AUTHORIZATION, value));
        Self {
            server,
            fields: basic.into_iter().collect(),
            identity: None,
            signer: None,
        }
    }

    /// Whether it is for `server`, whatever user names and passwords the URLs have.
    pub(crate) fn is_for(&self, server: &ServerUrl) -> bool {
        self.server.as_str() == server.as_str()
    }

    /// Whether it is for `server` and the user name in its URL.
    #[must_use]
    pub(crate) fn is_for_user_of(&self, server: &ServerUrl) -> bool {
        self.is_for(server) && self.is_user_of(server.base())
    }

    /// The user name in the URL of the server.
    #[must_use]
    pub(crate) fn user(&self) -> Option<&str> {
        Some(self.server.base().username()).filter(|user| !user.is_empty())
    }

    /// Whether the user names here and in `url` are the same, where both have one.
    fn is_user_of(&self, url: &Url) -> bool {
        let own = self.server.base().username();
        own.is_empty() || url.username().is_empty() || own == url.username()
    }

    /// Adds the header field `name`, unless there is one of this name.
    ///
    /// # Errors
    /// The field cannot be sent, or may not be set.
    pub(crate) fn add_field(&mut self, name: &str, value: &Secret) -> Result<(), CredentialError> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| CredentialError::Name)?;
        if RESERVED.contains(&name.as_str()) {
            return Err(CredentialError::Reserved);
        }
        let value = sensitive(value.expose()).ok_or(CredentialError::Value)?;
        self.fields.entry(name).or_insert(value);
        Ok(())
    }

    /// Adds a token, as `Authorization: Bearer`.
    ///
    /// # Errors
    /// It has characters that are not allowed.
    pub(crate) fn add_token(&mut self, token: &Secret) -> Result<(), CredentialError> {
        let value = Secret::new(format!("Bearer {}", token.expose()));
        self.add_field(AUTHORIZATION.as_str(), &value)
    }

    /// Adds a user name and a password, as `Authorization: Basic`. They replace a user name without a
    /// password in the URL of the server.
    pub(crate) fn add_password(&mut self, user: &str, password: &Secret) {
        let value = basic(user.as_bytes(), password.expose().as_bytes());
        let url = self.server.base();
        if url.password().is_none() && !url.username().is_empty() {
            self.fields.insert(AUTHORIZATION, value);
        } else {
            self.fields.entry(AUTHORIZATION).or_insert(value);
        }
    }

    /// Sets what signs the requests for the bucket that the server is.
    pub(crate) fn set_signer(&mut self, signer: BucketSigner) {
        self.signer = Some(Arc::new(signer));
    }

    /// Sets the client certificate.
    pub(crate) fn set_identity(&mut self, identity: ClientIdentity) {
        self.identity = Some(identity);
    }
}

/// The value of a header field that `Debug` does not show, if `text` can be one.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let is_allowed = text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let mut value = HeaderValue::from_str(text).ok().filter(|_| is_allowed)?;
    value.set_sensitive(true);
    Some(value)
}

/// A client certificate with its key.
#[derive(Clone)]
pub(crate) struct ClientIdentity(Arc<SingleCertAndKey>);

/// Why a client certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// The file of certificates is not PEM, or has none.
    #[error("there is no certificate in PEM format in it")]
    NoCertificate,
    /// The file of the key is not PEM, or has none.
    #[error("there is no unencrypted private key in PEM format in it")]
    NoKey,
    /// The key is of an unknown kind, or that of another certificate.
    #[error("the private key does not fit the certificate")]
    Mismatch(#[source] rustls::Error),
}

impl ClientIdentity {
    /// The certificate, with those of its authorities, in `certificates`, and its key in `key`; both
    /// are PEM.
    ///
    /// # Errors
    /// One of them is missing, or they do not belong together.
    pub(crate) fn from_pem(certificates: &Secret, key: &Secret) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(certificates.expose().as_bytes());
        let chain: Result<Vec<_>, pem::Error> = chain.collect();
        let chain = chain.map_err(|_| IdentityError::NoCertificate)?;
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }

        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes());
        let key = key.map_err(|_| IdentityError::NoKey)?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let certified = certified.map_err(IdentityError::Mismatch)?;
        Ok(Self(Arc::new(SingleCertAndKey::from(certified))))
    }

    /// What the TLS library takes it from.
    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::clone(&self.0) as _
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, token: &str) -> ServerCredentials {
        let mut server = ServerCredentials::new(ServerUrl::parse(url).unwrap());
        server.add_token(&Secret::new(token)).unwrap();
        server
    }

    fn sent(credentials: &Credentials, url: &str) -> Option<String> {
        let fields = credentials.fields(&Url::parse(url).unwrap());
        let value = fields.get(AUTHORIZATION)?.to_str().unwrap();
        Some(value.to_owned())
    }

    #[test]
    fn credentials_are_for_one_scheme_host_and_port() {
        let mut credentials = Credentials::default();
        credentials.add(server("https://h/a", "one"));
        for url in ["https://h/a/x", "https://h/b", "https://h:443/"] {
            assert_eq!(sent(&credentials, url).as_deref(), Some("Bearer one"));
        }
        for url in [
            "http://h/a/x",
            "https://h:444/a/x",
            "https://i/a",
            "https://h.i/a",
        ] {
            assert_eq!(sent(&credentials, url), None, "{url}");
        }
        let own = sent(&credentials, "https://me:pw@h/a");
        assert_eq!(own.as_deref(), Some("Basic bWU6cHc="));
    }

    #[test]
    fn servers_of_one_host_have_credentials_of_their_own() {
        let mut credentials = Credentials::default();
        credentials.add(server("https://h/a", "one"));
        credentials.add(server("https://h/a/b", "two"));
        credentials.add(server("https://you:pw@h/c", "unused"));
        for (url, value) in [
            ("https://h/a/x", Some("Bearer one")),
            ("https://h/a/b/x", Some("Bearer two")),
            ("https://h/c/x", Some("Basic eW91OnB3")),
            ("https://h/ab", None),
            ("https://h/", None),
        ] {
            assert_eq!(sent(&credentials, url).as_deref(), value, "{url}");
        }
    }

    #[test]
    fn fields_that_cannot_be_sent_are_errors_without_their_values() {
        let mut server = ServerCredentials::new(ServerUrl::parse("https://h").unwrap());
        for (name, value, error) in [
            ("a b", "x", CredentialError::Name),
            ("", "x", CredentialError::Name),
            ("Host", "x", CredentialError::Reserved),
            ("Content-Length", "1", CredentialError::Reserved),
            ("X-Key", "Sesame\r\nHost: x", CredentialError::Value),
            ("X-Key", "S\u{e9}same", CredentialError::Value),
        ] {
            assert_eq!(server.add_field(name, &Secret::new(value)), Err(error));
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut server = server("https://me:Sesame@h", "Sesame");
        server.add_field("X-Key", &Secret::new("Sesame")).unwrap();
        let mut credentials = Credentials::default();
        credentials.add(server);
        let fields = credentials.fields(&Url::parse("https://h/x").unwrap());
        let shown = format!("{credentials:?}{fields:?}");
        assert!(
            !shown.contains("Sesame") && !shown.contains("U2VzYW1l"),
            "{shown}"
        );
    }
}
