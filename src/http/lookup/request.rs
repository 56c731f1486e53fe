//! Requests of lookups: the same bytes over and over with another name in the middle.

use bytes::{BufMut, BytesMut};
use url::Url;

use crate::format::server_url::ServerUrl;
use crate::format::store_path::HashPart;
use crate::http::net::address::basic_credentials;
use crate::http::options::Options;

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Question {
    /// What it says of itself.
    CacheInfo,
    /// What it says of an item.
    NarInfo(HashPart),
}

impl Question {
    /// The address that answers it.
    pub(in crate::http) fn url(self, server: &ServerUrl) -> Url {
        match self {
            Self::CacheInfo => server.cache_info_url(),
            Self::NarInfo(item) => server.narinfo_url(&item),
        }
    }
}

/// Writes the requests for one server.
#[derive(Debug)]
pub(in crate::http) struct Requests {
    before_name: Vec<u8>,
    after_name: Vec<u8>,
    authorization: Option<String>,
    user_agent: String,
}

impl Requests {
    pub(in crate::http) fn new(server: &ServerUrl, options: &Options) -> Self {
        let base = server.base();
        // A proxy that forwards http needs the whole address, and logs in on every request.
        let proxy = options
            .proxies
            .for_url(base)
            .filter(|proxy| base.scheme() == "http" && matches!(proxy.scheme(), "http" | "https"));
        let host = host(base);
        let target = match proxy {
            Some(_) => format!("http://{host}{}", base.path()),
            None => base.path().to_owned(),
        };
        let authorization = basic_credentials(base);
        let user_agent: String = options
            .user_agent
            .chars()
            .filter(|c| matches!(c, ' '..='~'))
            .collect();
        let mut fields = format!(
            " HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {user_agent}\r\nAccept-Encoding: identity\r\n"
        );
        if let Some(credentials) = &authorization {
            fields.push_str(&format!("Authorization: {credentials}\r\n"));
        }
        if let Some(credentials) = proxy.and_then(basic_credentials) {
            fields.push_str(&format!("Proxy-Authorization: {credentials}\r\n"));
        }
        fields.push_str("\r\n");
        Self {
            before_name: format!("GET {target}").into_bytes(),
            after_name: fields.into_bytes(),
            authorization,
            user_agent,
        }
    }

    /// Appends the HTTP/1.1 request for `question` to `out`.
    pub(in crate::http) fn write(&self, question: Question, out: &mut BytesMut) {
        out.put_slice(&self.before_name);
        match question {
            Question::CacheInfo => out.put_slice(b"nix-cache-info"),
            Question::NarInfo(item) => {
                out.put_slice(item.as_str().as_bytes());
                out.put_slice(b".narinfo");
            }
        }
        out.put_slice(&self.after_name);
    }

    /// The HTTP/2 request for the resource at `url`.
    pub(in crate::http) fn http2(&self, url: &Url) -> Result<http::Request<()>, http::Error> {
        let uri = format!("{}://{}{}", url.scheme(), host(url), url.path());
        let mut request = http::Request::get(uri)
            .header(http::header::USER_AGENT, self.user_agent.as_str())
            .header(http::header::ACCEPT_ENCODING, "identity");
        if let Some(credentials) = &self.authorization {
            request = request.header(http::header::AUTHORIZATION, credentials.as_str());
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
    use super::*;
    use crate::http::Proxies;

    fn written(server: &str, options: &Options) -> String {
        let server = ServerUrl::parse(server).unwrap();
        let item = HashPart::parse(&"0".repeat(32)).unwrap();
        let mut out = BytesMut::new();
        let requests = Requests::new(&server, options);
        requests.write(Question::CacheInfo, &mut out);
        requests.write(Question::NarInfo(item), &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn direct_requests() {
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
    fn credentials_go_to_whom_they_belong() {
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
