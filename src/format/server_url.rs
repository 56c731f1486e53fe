//! The base URL of a substitute server, and the URLs of its files.
//!
//! A base URL may or may not end in `/`; file names are appended to its path either way. A
//! narinfo's `URL` field is relative to the base or absolute, and is *not* signed: the server
//! chooses it. So it may only lead to http and https, and from a `file:` server to files below
//! that server's own directory.

use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use url::Url;

use super::credentials::{REMOVED, url_without_credentials};
use super::escape::clip;
use super::s3_location::{self, S3Location, canonical_url, encoded_parameter};
use super::store_path::HashPart;

/// Why a text is not the URL of a server, or of a nar on it. Quoted text has no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServerUrlError {
    /// Not a URL at all.
    #[error("`{}` is not a URL{}", .0.escape_debug(), url_advice(.0))]
    Syntax(String),
    /// Not http, https, s3 or file.
    #[error("`{}` is not an http, https, s3 or file URL{}", .0.escape_debug(), url_advice(.0))]
    Scheme(String),
    /// A directory relative to the working directory, or on another machine.
    #[error(
        "`{}`: a file URL needs the whole path of a directory here, as in file:///srv/substitutes",
        .0.escape_debug()
    )]
    Relative(String),
    /// An s3 URL that does not name a bucket, or with wrong parameters.
    #[error("`{}`: {}", .0.escape_debug(), .1)]
    Bucket(String, String),
    /// A server refers to something that it must not refer to.
    #[error("the server may not point to `{}`", .0.escape_debug())]
    Forbidden(String),
}

/// The base URL of a substitute server.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerUrl {
    /// Ends in `/`, so that joining keeps the last path segment.
    base: Url,
    /// Without credentials and without the final slash.
    shown: String,
    /// The bucket that it is, if it was named by an s3 URL.
    bucket: Option<Arc<S3Location>>,
}

impl ServerUrl {
    /// The server at `text`.
    ///
    /// # Errors
    /// `text` is not an absolute http, https, s3 or file URL, the latter names no absolute path, or an
    /// s3 URL is not the one of a bucket.
    pub(crate) fn parse(text: &str) -> Result<Self, ServerUrlError> {
        let mut base = Url::parse(text).map_err(|_| ServerUrlError::Syntax(quoted(text)))?;
        if base.scheme() == "s3" {
            let address = s3_location::parse(&base);
            let address = address.map_err(|fault| ServerUrlError::Bucket(quoted(text), fault))?;
            return Ok(Self {
                base: address.base,
                shown: address.shown,
                bucket: Some(Arc::new(address.location)),
            });
        }
        if !matches!(base.scheme(), "http" | "https" | "file") {
            return Err(ServerUrlError::Scheme(quoted(text)));
        }
        if base.scheme() != "file" && base.host_str().is_none_or(str::is_empty) {
            return Err(ServerUrlError::Syntax(quoted(text)));
        }

        // The URL parser would turn a relative path into an absolute one.
        let is_relative = !text
            .split_once(':')
            .is_some_and(|(_, path)| path.starts_with('/'));
        if base.scheme() == "file" && (is_relative || base.host().is_some()) {
            return Err(ServerUrlError::Relative(quoted(text)));
        }

        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let shown = redacted(&base).trim_end_matches('/').to_owned();

        Ok(Self {
            base,
            shown,
            bucket: None,
        })
    }

    /// The base URL, ending in `/`, with the user's credentials if there are any.
    #[must_use]
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// The base URL for messages and for the lookup cache: without credentials and final slash.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.shown
    }

    /// The host, and the port unless it is the default one; for a directory, its whole URL.
    #[must_use]
    pub(crate) fn host_and_port(&self) -> String {
        match (self.base.host_str(), self.base.port()) {
            (None, _) => self.shown.clone(),
            (Some(host), None) => host.to_owned(),
            (Some(host), Some(port)) => format!("{host}:{port}"),
        }
    }

    /// Whether this is a directory rather than a server on the network.
    #[must_use]
    pub(crate) fn is_file(&self) -> bool {
        self.base.scheme() == "file"
    }

    /// The bucket that it is, if it was named by an s3 URL.
    #[must_use]
    pub(crate) fn bucket(&self) -> Option<&S3Location> {
        self.bucket.as_deref()
    }

    /// The URL of the bucket itself, and what the keys of the server's objects begin with.
    #[must_use]
    pub(crate) fn bucket_root(&self) -> Option<(Url, String)> {
        let encoded = &self.bucket()?.prefix;
        let mut root = self.base.clone();
        root.set_path(self.base.path().strip_suffix(encoded)?);
        let prefix = percent_decode_str(encoded).decode_utf8().ok()?;
        Some((root, prefix.into_owned()))
    }

    /// The URL of the object `key` of the bucket.
    #[must_use]
    pub(crate) fn object_url(&self, key: &str) -> Url {
        let mut url = self.base.clone();
        let segments: Vec<String> = key.split('/').map(encoded_parameter).collect();
        url.set_path(&format!("{}{}", self.base.path(), segments.join("/")));
        url
    }

    /// Whether `url` is below the URL of the server. Its path ends with a slash, so `/a` does not
    /// contain `/ab`.
    #[must_use]
    pub(crate) fn contains(&self, url: &Url) -> bool {
        self.base.origin() == url.origin() && url.path().starts_with(self.base.path())
    }

    /// The URL of the server's `nix-cache-info` file.
    #[must_use]
    pub(crate) fn cache_info_url(&self) -> Url {
        self.join_literal("nix-cache-info")
    }

    /// The URL of the narinfo of the item with this hash part.
    #[must_use]
    pub(crate) fn narinfo_url(&self, item: &HashPart) -> Url {
        self.join_literal(&format!("{item}.narinfo"))
    }

    /// The URL that a narinfo's `URL` field refers to, without the user's credentials.
    ///
    /// # Errors
    /// The field is not a URL, has another scheme than http or https, or leaves the directory
    /// of a `file:` server.
    pub(crate) fn nar_url(&self, field: &str) -> Result<Url, ServerUrlError> {
        let url = match Url::parse(field) {
            Ok(absolute) => absolute,
            Err(url::ParseError::RelativeUrlWithoutBase) => self.join_relative(field)?,
            Err(_) => return Err(ServerUrlError::Syntax(quoted(field))),
        };
        match (url.scheme(), self.is_file()) {
            ("http" | "https", _) => Ok(url),
            ("file", true) if self.holds_file(&url) => Ok(url),
            _ => Err(ServerUrlError::Forbidden(quoted(field))),
        }
    }

    /// Appends a relative field to the base unchanged, as Guix and Nix do: resolving it would drop
    /// or reinterpret characters such as a leading `/`.
    fn join_relative(&self, field: &str) -> Result<Url, ServerUrlError> {
        let base = redacted(&self.base);
        let text = format!("{base}{}", field.trim_start_matches('/'));
        let url = Url::parse(&text).map_err(|_| ServerUrlError::Syntax(quoted(field)))?;
        let same_server = url.host() == self.base.host()
            && url.port_or_known_default() == self.base.port_or_known_default();

        if same_server && self.bucket.is_some() {
            Ok(canonical_url(url))
        } else if same_server {
            Ok(url)
        } else {
            Err(ServerUrlError::Forbidden(quoted(field)))
        }
    }

    fn holds_file(&self, url: &Url) -> bool {
        let inside = url.path().strip_prefix(self.base.path());
        url.host().is_none() && inside.is_some_and(|path| !path.is_empty() && !may_escape(path))
    }

    fn join_literal(&self, name: &str) -> Url {
        self.base
            .join(name)
            .expect("a plain file name joins to every base URL")
    }
}

/// Whether a relative URL path could lead out of its directory.
fn may_escape(path: &str) -> bool {
    path.contains("..") || path.to_ascii_lowercase().contains("%2f")
}

/// How many bytes of a URL an error quotes.
const QUOTED_BYTES_MAX: usize = 512;

/// `text` as an error quotes it.
fn quoted(text: &str) -> String {
    clip(&url_without_credentials(text), QUOTED_BYTES_MAX).to_owned()
}

/// How to write a URL with a password, if `shown` had one that was removed.
#[must_use]
pub(crate) fn percent_advice(shown: &str) -> &'static str {
    if shown.contains(REMOVED) {
        "; in a user name or password, `/` is written %2F, `#` %23, `?` %3F, and a blank %20"
    } else {
        ""
    }
}

/// What may be wrong with `text`, which is not the URL of a server.
fn url_advice(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://") {
        return match mistyped_scheme(&scheme.to_ascii_lowercase()) {
            Some(meant) => format!("; did you mean `{meant}://{}`?", rest.escape_debug()),
            None => percent_advice(text).to_owned(),
        };
    }
    match text.chars().next() {
        Some('/') => format!("; did you mean `file://{}`?", text.escape_debug()),
        Some('.') => {
            "; a directory is named by its whole path, as in file:///srv/substitutes".to_owned()
        }
        Some(c) if c.is_ascii_alphanumeric() => {
            format!("; did you mean `https://{}`?", text.escape_debug())
        }
        _ => percent_advice(text).to_owned(),
    }
}

/// What `scheme` was meant to be, if it differs by one letter from what the URL of a server begins with.
fn mistyped_scheme(scheme: &str) -> Option<&'static str> {
    let known = ["https", "http", "file", "s3"];
    let mut near = known
        .into_iter()
        .filter(|known| strsim::damerau_levenshtein(scheme, known) == 1);
    near.next().filter(|_| !known.contains(&scheme))
}

/// `url` as text, without user name and password.
#[must_use]
pub(crate) fn redacted(url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() {
        return url.to_string();
    }

    let mut url = url.clone();
    // Both fail only for URLs that cannot have credentials, and those have none.
    let _ = url.set_username("");
    let _ = url.set_password(None);

    url.to_string()
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerUrl({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_needs_its_whole_path() {
        for text in ["file:relative", "file:./x", "FILE:x", "file://host/x"] {
            let relative = Err(ServerUrlError::Relative(text.to_owned()));
            assert_eq!(ServerUrl::parse(text), relative);
        }
        for text in ["file:///x", "file:/x", "file://localhost/x"] {
            assert_eq!(ServerUrl::parse(text).unwrap().as_str(), "file:///x");
        }
    }

    #[test]
    fn what_was_mistyped_is_corrected() {
        for (text, meant) in [
            (
                "htps://cache.example/a",
                "did you mean `https://cache.example/a`?",
            ),
            (
                "htpp://cache.example",
                "did you mean `http://cache.example`?",
            ),
            (
                "HTPP://cache.example",
                "did you mean `http://cache.example`?",
            ),
            ("s://bucket", "did you mean `s3://bucket`?"),
            ("s4://bucket", "did you mean `s3://bucket`?"),
            ("fil:///srv/a", "did you mean `file:///srv/a`?"),
            ("/srv/a", "did you mean `file:///srv/a`?"),
            ("./a", "as in file:///srv/substitutes"),
            ("../a", "as in file:///srv/substitutes"),
            ("cache.example", "did you mean `https://cache.example`?"),
        ] {
            let message = ServerUrl::parse(text).unwrap_err().to_string();
            assert!(message.ends_with(meant), "{message}");
        }
        for text in ["gopher://cache.example", "http://[", "https://h:x"] {
            let other = ServerUrl::parse(text).unwrap_err().to_string();
            assert!(!other.contains("did you mean"), "{other}");
        }
    }

    fn server(text: &str) -> ServerUrl {
        ServerUrl::parse(text).unwrap()
    }

    #[test]
    fn a_final_slash_makes_no_difference() {
        let item = HashPart::parse(&"0".repeat(32)).unwrap();
        for text in ["http://h/a/b", "http://h/a/b/", "http://h/a/b?x=1"] {
            let server = server(text);
            assert_eq!(server.as_str(), "http://h/a/b");
            let narinfo = server.narinfo_url(&item);
            assert_eq!(narinfo.path(), format!("/a/b/{item}.narinfo"));
            assert_eq!(
                server.nar_url("nar/x").unwrap().as_str(),
                "http://h/a/b/nar/x"
            );
        }
    }

    #[test]
    fn nar_urls_keep_their_spelling() {
        let server = server("http://h");
        let escaped = server.nar_url("nar/zstd/abc-g%2B%2B-1.0?hash=x").unwrap();
        assert_eq!(escaped.as_str(), "http://h/nar/zstd/abc-g%2B%2B-1.0?hash=x");
        let absolute = server.nar_url("https://cdn.example/nar/x").unwrap();
        assert_eq!(absolute.as_str(), "https://cdn.example/nar/x");
    }

    #[test]
    fn an_error_quotes_the_beginning_of_a_long_url() {
        let long = "x".repeat(10 * QUOTED_BYTES_MAX);
        let server = server("https://h");
        for field in [format!("ftp://me:secret@{long}"), format!("http://[{long}")] {
            let error = server.nar_url(&field).unwrap_err().to_string();
            assert!(error.len() < 2 * QUOTED_BYTES_MAX, "{}", error.len());
            assert!(!error.contains("secret"));
        }
        assert!(server.nar_url(&long).is_ok(), "a long URL is no error");
    }

    #[test]
    fn a_server_cannot_point_at_local_files() {
        let http = server("http://h/a");
        assert!(http.nar_url("file:///etc/passwd").is_err());
        assert!(http.nar_url("ftp://h/x").is_err());
        let file = server("file:///srv/cache");
        assert!(file.nar_url("nar/x").is_ok());
        for outside in [
            "file:///etc/passwd",
            "../secret",
            "nar/../../x",
            "nar/%2e%2e/%2e%2e/x",
            "nar/..%2f..%2fx",
        ] {
            assert!(file.nar_url(outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let server = server("https://user:secret@h/");
        assert_eq!(server.to_string(), "https://h");
        assert_eq!(format!("{server:?}"), "ServerUrl(https://h)");
        assert_eq!(server.base().password(), Some("secret"));
        assert_eq!(server.nar_url("x").unwrap().as_str(), "https://h/x");
    }

    #[test]
    fn credentials_are_not_shown_of_what_is_no_url() {
        for text in [
            "http://me:Sesame/1@h",
            "ftp://me:Sesame@h",
            "file://me:Sesame@h/x",
            "http://me:Sesame@",
        ] {
            let error = ServerUrl::parse(text).unwrap_err().to_string();
            assert!(
                !error.contains("Sesame") && !error.contains("me:"),
                "{error}"
            );
        }
        for field in [
            "ftp://me:Sesame@h/x",
            "http://me:Sesame#@h",
            "file://me:Sesame@h/x",
        ] {
            let error = server("http://h").nar_url(field).unwrap_err().to_string();
            assert!(!error.contains("Sesame"), "{error}");
        }
    }

    #[test]
    fn refuses_other_schemes() {
        for text in ["ftp://h", "h", "", "http://", "s3:b"] {
            assert!(ServerUrl::parse(text).is_err(), "{text}");
        }
    }
}
