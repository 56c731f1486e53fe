//! Requests of lookups as bytes: the same ones over and over with another name in the middle.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use http::header::{AUTHORIZATION, HeaderMap, PROXY_AUTHORIZATION};
use url::Url;

use super::request::RequestTarget;
use crate::format::server_url::ServerUrl;
use crate::http::net::address::{basic_credentials, field_line};
use crate::http::options::Options;
use crate::http::s3::key_source::AccessKey;
use crate::http::s3::signer::BucketSigner;

/// Encodes the requests for one server.
pub(super) struct RequestEncoder {
    before_name: Vec<u8>,
    after_name: Vec<u8>,
    credentials: HeaderMap,
    user_agent: String,
    signed: Option<SignedServer>,
}

/// A bucket, whose every request is signed.
struct SignedServer {
    server: ServerUrl,
    signer: Arc<BucketSigner>,
}

impl RequestEncoder {
    /// The encoder for `server`, whose requests may go through a proxy.
    pub(super) fn new(server: &ServerUrl, options: &Options) -> Self {
        let base = server.base();
        // A proxy that forwards http needs the whole URL, and credentials in every request.
        let proxy = options
            .proxies
            .for_url(base)
            .filter(|proxy| base.scheme() == "http" && matches!(proxy.scheme(), "http" | "https"));
        let host = host(base);
        let path = match proxy {
            Some(_) => format!("http://{host}{}", base.path()),
            None => base.path().to_owned(),
        };

        let mut credentials = options.credentials.fields(base);
        let signer = options.credentials.signer_of(server);
        if signer.is_some_and(|signer| signer.may_sign()) {
            // A signature has the same field, of which there is one in a request.
            credentials.remove(AUTHORIZATION);
        }
        let user_agent: String = options
            .user_agent
            .chars()
            .filter(|c| matches!(c, ' '..='~'))
            .collect();

        let fields = format!(
            " HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {user_agent}\r\nAccept-Encoding: identity\r\n"
        );
        let mut fields = fields.into_bytes();
        for (name, value) in &credentials {
            fields.extend(field_line(name, value));
        }
        if let Some(credentials) = proxy.and_then(basic_credentials) {
            fields.extend(field_line(&PROXY_AUTHORIZATION, &credentials));
        }
        let signed = signer.map(|signer| SignedServer {
            server: server.clone(),
            signer: Arc::clone(signer),
        });
        if signed.is_none() {
            fields.extend(b"\r\n");
        }

        Self {
            before_name: format!("GET {path}").into_bytes(),
            after_name: fields,
            credentials,
            user_agent,
            signed,
        }
    }

    /// Appends the HTTP/1.1 request for `target` to `out`, and returns what it is signed with.
    pub(super) fn write(
        &self,
        target: RequestTarget,
        out: &mut BytesMut,
    ) -> Option<Arc<AccessKey>> {
        out.put_slice(&self.before_name);
        match target {
            RequestTarget::CacheInfo => out.put_slice(b"nix-cache-info"),
            RequestTarget::NarInfo(item) => {
                out.put_slice(item.as_str().as_bytes());
                out.put_slice(b".narinfo");
            }
        }
        out.put_slice(&self.after_name);
        let signed = self.signed.as_ref()?;
        let signed = signed.signer.fields("GET", &target.url(&signed.server));
        for (name, value) in &signed.fields {
            out.put_slice(&field_line(name, value));
        }
        out.put_slice(b"\r\n");
        signed.key
    }

    /// The HTTP/2 request for the resource at `url`.
    pub(super) fn http2(&self, url: &Url) -> Result<http::Request<()>, http::Error> {
        let uri = format!("{}://{}{}", url.scheme(), host(url), url.path());
        let mut request = http::Request::get(uri)
            .header(http::header::USER_AGENT, self.user_agent.as_str())
            .header(http::header::ACCEPT_ENCODING, "identity");
        for (name, value) in &self.credentials {
            request = request.header(name, value);
        }
        request.body(())
    }
}

/// `host`, or `host:port` for a port that is not the scheme's own.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::format::secret::Secret;
    use crate::format::store_path::HashPart;
    use crate::http::{AccessKeySource, AccessKeys, Proxies, ServerCredentials};

    fn written(server: &str, options: &Options) -> String {
        let server = ServerUrl::parse(server).unwrap();
        let item = HashPart::parse(&"0".repeat(32)).unwrap();
        let mut out = BytesMut::new();
        let encoder = RequestEncoder::new(&server, options);
        encoder.write(RequestTarget::CacheInfo, &mut out);
        encoder.write(RequestTarget::NarInfo(item), &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn http2_requests_have_credentials_that_are_not_shown() {
        let server = ServerUrl::parse("https://me:Sesame@h/a").unwrap();
        let encoder = RequestEncoder::new(&server, &Options::default());
        let request = encoder.http2(&server.cache_info_url()).unwrap();
        let value = &request.headers()[http::header::AUTHORIZATION];
        assert_eq!(value, "Basic bWU6U2VzYW1l");
        assert_eq!(request.uri(), "https://h/a/nix-cache-info");
        assert!(!format!("{request:?}").contains("bWU6"));
    }

    /// The credentials of `url`: a token, and an access key with the name `id`.
    fn bucket(url: &str, id: &str) -> ServerCredentials {
        let server = ServerUrl::parse(url).unwrap();
        let mut credentials = ServerCredentials::new(server.clone());
        credentials.add_token(&Secret::new("token")).unwrap();
        let source = match id {
            "" => AccessKeySource::Anonymous,
            id => AccessKeySource::Fixed(AccessKey {
                id: id.to_owned(),
                secret: Secret::new("Sesame"),
                session_token: None,
                expires: None,
            }),
        };
        let location = server.bucket().unwrap().clone();
        let keys = Arc::new(AccessKeys::new(source));
        let signer = BucketSigner::new(server, location, keys, || Duration::from_secs(1));
        credentials.set_signer(signer);
        credentials
    }

    #[test]
    fn buckets_have_one_authorization_which_is_that_of_their_url() {
        let mut options = Options::default();
        for (parameter, id) in [("", "none"), ("&profile=a", "ida"), ("&profile=b", "idb")] {
            let url = format!("s3://b?endpoint=http://h{parameter}");
            options.credentials.add(bucket(&url, id));
        }
        for (parameter, id) in [("", "none"), ("&profile=a", "ida"), ("&profile=b", "idb")] {
            let text = written(&format!("s3://b?endpoint=http://h{parameter}"), &options);
            let name = "\r\nauthorization: ";
            let fields: Vec<_> = text
                .to_ascii_lowercase()
                .match_indices(name)
                .map(|_| ())
                .collect();
            assert_eq!(fields.len(), 2, "{text}");
            assert_eq!(
                text.matches(&format!("Credential={id}/")).count(),
                2,
                "{text}"
            );
        }

        let mut options = Options::default();
        let public = "s3://b?endpoint=http://h";
        options.credentials.add(bucket(public, ""));
        let text = written(public, &options);
        assert_eq!(
            text.matches("Authorization: Bearer token").count(),
            2,
            "{text}"
        );
    }

    #[test]
    fn requests_without_a_proxy() {
        let options = Options {
            user_agent: "a\r\nb".into(),
            ..Options::default()
        };
        let fields = "Host: h:81\r\nUser-Agent: ab\r\nAccept-Encoding: identity\r\n\r\n";
        let zeros = "0".repeat(32);
        assert_eq!(
            written("http://h:81/x", &options),
            format!(
                "GET /x/nix-cache-info HTTP/1.1\r\n{fields}GET /x/{zeros}.narinfo HTTP/1.1\r\n{fields}"
            )
        );
    }

    #[test]
    fn credentials_go_only_to_their_server_or_proxy() {
        let proxy = Url::parse("http://me:p%40ss@proxy:3128").ok();
        let proxies = Proxies {
            http: proxy.clone(),
            https: proxy,
            ..Proxies::default()
        };
        let options = Options {
            proxies,
            ..Options::default()
        };
        let http = written("http://user@h", &options);
        assert!(
            http.starts_with("GET http://h/nix-cache-info HTTP/1.1\r\nHost: h\r\n"),
            "{http}"
        );
        assert!(
            http.contains("\r\nAuthorization: Basic dXNlcjo=\r\n"),
            "{http}"
        );
        assert!(
            http.contains("\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n"),
            "{http}"
        );
        let https = written("https://user@h", &options);
        assert!(
            https.starts_with("GET /nix-cache-info HTTP/1.1\r\n"),
            "{https}"
        );
        assert!(!https.contains("Proxy-Authorization"), "{https}");
    }
}
