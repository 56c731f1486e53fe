//! `s3://BUCKET[/PREFIX]?NAME=VALUE&...`: a bucket of an object store as a server.
//!
//! The parameters are those of Nix: `endpoint`, `region`, `profile`, `scheme` and `addressing-style`. Those of
//! Nix that are about writing are accepted and have no effect; all others are errors, since a
//! mistyped one would send requests elsewhere. Pure.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

/// The bucket that an `s3://` URL names, and how its requests are signed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct S3Location {
    /// The name of the bucket.
    pub(crate) bucket: String,
    /// What the keys of all objects begin with, encoded as in the path of the URL: nothing, or text with a slash at
    /// its end.
    pub(crate) prefix: String,
    /// The region to sign for.
    pub(crate) region: String,
    /// The profile of the shared credentials files to use.
    pub(crate) profile: Option<String>,
    /// Whether the bucket is at Amazon, rather than at an endpoint that the URL names.
    pub(crate) is_at_amazon: bool,
}

/// What an `s3://` URL says.
pub(super) struct S3Address {
    pub(super) location: S3Location,
    /// The http or https URL of what is below the prefix. Ends in `/`.
    pub(super) base: Url,
    /// The URL with the parameters that matter, for messages and the lookup cache. It leads to the same place.
    pub(super) shown: String,
}

/// How a bucket is named in requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AddressingStyle {
    /// In the host where that works: at Amazon, unless the name has a dot, which certificates do not cover.
    Auto,
    /// In the path.
    Path,
    /// In the host.
    Virtual,
}

#[derive(Default)]
struct S3Parameters {
    endpoint: Option<String>,
    scheme: Option<String>,
    region: Option<String>,
    profile: Option<String>,
    addressing: Option<AddressingStyle>,
}

/// Parses `url`, whose scheme is `s3`. An error says what is wrong with it.
pub(super) fn parse(url: &Url) -> Result<S3Address, String> {
    let bucket = url.host_str().unwrap_or_default();
    if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
        return Err(
            "an s3 URL has a bucket and no user name, password or port; credentials \
             are found as the AWS tools find them, and `endpoint` names another host"
                .to_owned(),
        );
    }
    if !is_bucket(bucket) {
        return Err("it does not name a bucket, as in s3://BUCKET/PREFIX".to_owned());
    }

    let parameters = S3Parameters::parse(url)?;
    let region = parameters.region.as_deref().unwrap_or(DEFAULT_REGION);
    let scheme = parameters.scheme.as_deref().unwrap_or(DEFAULT_SCHEME);
    let endpoint = match &parameters.endpoint {
        Some(text) => Some(parse_endpoint(text, scheme)?),
        None => None,
    };
    let is_at_amazon = endpoint.is_none();
    let query = parameters.canonical(endpoint.as_ref());
    let style = parameters.addressing.unwrap_or(AddressingStyle::Auto);
    let is_in_host = match style {
        AddressingStyle::Auto => is_at_amazon && !bucket.contains('.'),
        AddressingStyle::Path => false,
        AddressingStyle::Virtual => true,
    };
    let mut base = match endpoint {
        Some(url) => url,
        None => amazon_endpoint(region, scheme)?,
    };
    let prefix = prefix_of(url)?;
    let prefix = prefix.trim_matches('/');
    if is_in_host {
        let host = format!("{bucket}.{}", base.host_str().unwrap_or_default());
        base.set_host(Some(&host))
            .map_err(|_| format!("`{host}` is not a host name"))?;
    }
    let path = if is_in_host { "" } else { bucket };
    let segments = [path, prefix];
    let segments: Vec<&str> = segments.into_iter().filter(|it| !it.is_empty()).collect();
    let path = segments.iter().map(|segment| format!("{segment}/"));
    base.set_path(&format!("/{}", path.collect::<String>()));

    let separator = if prefix.is_empty() { "" } else { "/" };
    Ok(S3Address {
        location: S3Location {
            bucket: bucket.to_owned(),
            prefix: format!("{prefix}{separator}"),
            region: region.to_owned(),
            profile: parameters.profile,
            is_at_amazon,
        },
        base,
        shown: format!("s3://{bucket}{separator}{prefix}{query}"),
    })
}

/// The path of `url`, in which a slash is one however it is written.
fn prefix_of(url: &Url) -> Result<String, String> {
    let prefix = canonical_path(&url.path().replace("%2F", "/").replace("%2f", "/"));
    match prefix.split('/').any(|part| matches!(part, "." | "..")) {
        true => Err("its prefix has a part `.` or `..`".to_owned()),
        false => Ok(prefix),
    }
}

impl S3Parameters {
    fn parse(url: &Url) -> Result<Self, String> {
        let mut parameters = Self::default();
        for (name, value) in url.query_pairs() {
            let value = value.into_owned();
            match &*name {
                "endpoint" if value.is_empty() => {}
                "endpoint" => parameters.endpoint = Some(value),
                "scheme" if matches!(&*value, "http" | "https") => parameters.scheme = Some(value),
                "scheme" => return Err("`scheme` is http or https".to_owned()),
                "region" if is_region(&value) => parameters.region = Some(value),
                "region" => return Err("`region` is not the name of a region".to_owned()),
                "profile" if value.is_empty() => {}
                "profile" => parameters.profile = Some(value),
                "addressing-style" => {
                    parameters.addressing = Some(match &*value {
                        "auto" => AddressingStyle::Auto,
                        "path" => AddressingStyle::Path,
                        "virtual" => AddressingStyle::Virtual,
                        _ => return Err("`addressing-style` is auto, path or virtual".to_owned()),
                    });
                }
                name if PARAMETERS_OF_NIX.contains(&name) => {}
                _ => {
                    return Err("its parameters are endpoint, region, profile, scheme and \
                         addressing-style"
                        .to_owned());
                }
            }
        }

        // Other engines may have names in upper case.
        if parameters.endpoint.is_none() {
            let region = parameters.region.map(|name| name.to_ascii_lowercase());
            parameters.region = region;
        }
        Ok(parameters)
    }

    /// The query with these parameters, of which `endpoint` is the URL of one, where they are not the usual ones.
    fn canonical(&self, endpoint: Option<&Url>) -> String {
        let endpoint = endpoint.map(|url| url.as_str().trim_end_matches('/').to_owned());
        let region = self
            .region
            .clone()
            .filter(|region| region != DEFAULT_REGION);
        let profile = self.profile.as_deref().map(encoded_parameter);
        let style = self
            .addressing
            .filter(|style| *style != AddressingStyle::Auto);
        // The URL of an endpoint has a scheme of its own.
        let scheme = self.scheme.clone();
        let scheme = scheme.filter(|scheme| scheme != DEFAULT_SCHEME && endpoint.is_none());
        let fields = [
            ("scheme", scheme),
            ("endpoint", endpoint),
            ("region", region),
            ("profile", profile),
            (
                "addressing-style",
                style.map(|style| style.name().to_owned()),
            ),
        ];
        let fields = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let fields: Vec<String> = fields
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if fields.is_empty() {
            String::new()
        } else {
            format!("?{}", fields.join("&"))
        }
    }
}

impl AddressingStyle {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Path => "path",
            Self::Virtual => "virtual",
        }
    }
}

/// The URL of an endpoint, which may be a host with or without a port, or a URL.
fn parse_endpoint(text: &str, scheme: &str) -> Result<Url, String> {
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("{scheme}://{text}"))
    };
    url.ok().filter(is_plain_endpoint).ok_or_else(|| {
        "`endpoint` is a host, host:port, or an http or https URL without a path".to_owned()
    })
}

/// Whether `url` has nothing but a scheme, a host and a port.
fn is_plain_endpoint(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
}

/// The endpoint of a region at Amazon.
fn amazon_endpoint(region: &str, scheme: &str) -> Result<Url, String> {
    let domain = amazon_domain(region);
    Url::parse(&format!("{scheme}://s3.{region}.{domain}"))
        .map_err(|_| "`region` is not the name of a region".to_owned())
}

/// The domain of the services of Amazon in `region`.
#[must_use]
pub(crate) fn amazon_domain(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    }
}

/// Whether `text` may name a bucket. Other engines allow more than Amazon does.
fn is_bucket(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        && text.bytes().any(|byte| byte != b'.')
}

/// Whether `text` may name a region.
pub(crate) fn is_region(text: &str) -> bool {
    let mut bytes = text.bytes();
    (1..=64).contains(&text.len())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// `path` as it is signed and sent: each segment encoded once, and all but the unreserved characters. Object
/// stores disagree on what other spellings, such as `+`, mean.
#[must_use]
pub(crate) fn canonical_path(path: &str) -> String {
    let segments: Vec<String> = path.split('/').map(canonical_text).collect();
    segments.join("/")
}

/// `query` as it is signed and sent: encoded as a path, and sorted.
#[must_use]
pub(crate) fn canonical_query(query: &str) -> String {
    let fields = query.split('&').filter(|field| !field.is_empty());
    let mut fields: Vec<(String, String)> = fields
        .map(|field| field.split_once('=').unwrap_or((field, "")))
        .map(|(name, value)| (canonical_text(name), canonical_text(value)))
        .collect();
    fields.sort_unstable();

    let fields: Vec<String> = fields
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    fields.join("&")
}

/// `url` as requests for objects are sent and signed.
#[must_use]
pub(crate) fn canonical_url(mut url: Url) -> Url {
    let path = canonical_path(url.path());
    url.set_path(&path);
    let query = url.query().map(canonical_query);
    url.set_query(query.as_deref().filter(|query| !query.is_empty()));
    url
}

/// `text`, which may be encoded in any way, with all but the unreserved characters encoded.
fn canonical_text(text: &str) -> String {
    let bytes: Cow<'_, [u8]> = percent_decode_str(text).into();
    percent_encoding::percent_encode(&bytes, RESERVED).to_string()
}

/// `text` as the value of a parameter.
#[must_use]
pub(crate) fn encoded_parameter(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// What is encoded: all but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The scheme of an endpoint that has none.
const DEFAULT_SCHEME: &str = "https";

/// The region of a URL that names none, as in Nix.
const DEFAULT_REGION: &str = "us-east-1";

/// Parameters of Nix's stores that are about writing, or that the program has settings for.
const PARAMETERS_OF_NIX: [&str; 21] = [
    "buffer-size",
    "compression",
    "compression-level",
    "index-debug-info",
    "local-nar-cache",
    "log-compression",
    "ls-compression",
    "multipart-chunk-size",
    "multipart-threshold",
    "multipart-upload",
    "narinfo-compression",
    "parallel-compression",
    "path-info-cache-size",
    "priority",
    "secret-key",
    "secret-keys",
    "store",
    "storage-class",
    "trusted",
    "want-mass-query",
    "write-nar-listing",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Result<S3Address, String> {
        parse(&Url::parse(text).unwrap())
    }

    #[test]
    fn addresses_of_buckets() {
        for (text, base, shown) in [
            ("s3://b", "https://b.s3.us-east-1.amazonaws.com/", "s3://b"),
            (
                "s3://b/p/q/?region=eu-west-1",
                "https://b.s3.eu-west-1.amazonaws.com/p/q/",
                "s3://b/p/q?region=eu-west-1",
            ),
            (
                "s3://a.b?region=cn-north-1",
                "https://s3.cn-north-1.amazonaws.com.cn/a.b/",
                "s3://a.b?region=cn-north-1",
            ),
            (
                "s3://b/x+y?endpoint=127.0.0.1:80&scheme=http&profile=p",
                "http://127.0.0.1/b/x%2By/",
                "s3://b/x%2By?endpoint=http://127.0.0.1&profile=p",
            ),
            (
                "s3://b?endpoint=https://h:8443&addressing-style=virtual&compression=zstd",
                "https://b.h:8443/",
                "s3://b?endpoint=https://h:8443&addressing-style=virtual",
            ),
            (
                "s3://b?endpoint=https%3A%2F%2Fh%2F",
                "https://h/b/",
                "s3://b?endpoint=https://h",
            ),
            (
                "s3://b?scheme=http&region=EU-West-1",
                "http://b.s3.eu-west-1.amazonaws.com/",
                "s3://b?scheme=http&region=eu-west-1",
            ),
            (
                "s3://b?scheme=https&region=US-EAST-1",
                "https://b.s3.us-east-1.amazonaws.com/",
                "s3://b",
            ),
            (
                "s3://b?endpoint=https://h&scheme=http&region=Here",
                "https://h/b/",
                "s3://b?endpoint=https://h&region=Here",
            ),
            (
                "s3://b?addressing-style=path",
                "https://s3.us-east-1.amazonaws.com/b/",
                "s3://b?addressing-style=path",
            ),
        ] {
            let address = address(text).unwrap();
            assert_eq!(address.base.as_str(), base, "{text}");
            assert_eq!(address.shown, shown, "{text}");
            let again = super::parse(&Url::parse(shown).unwrap()).unwrap();
            assert_eq!(again.base, address.base, "{text}");
            assert_eq!(again.location, address.location, "{text}");
            assert_eq!(again.shown, shown);
        }
        let address = address("s3://b?profile=work&region=auto").unwrap();
        assert_eq!(address.location.profile.as_deref(), Some("work"));
        assert_eq!(address.location.region, "auto");
    }

    #[test]
    fn an_encoded_slash_in_a_prefix_is_a_slash() {
        let address = address("s3://b/x%2Fy%2f?endpoint=http://h").unwrap();
        assert_eq!(address.base.as_str(), "http://h/b/x/y/");
        assert_eq!(address.shown, "s3://b/x/y?endpoint=http://h");
    }

    #[test]
    fn other_urls_are_errors() {
        for text in [
            "s3:///x",
            "s3://..",
            "s3://b%2Fc",
            "s3://b/x%2F..%2fy",
            "s3://user@b",
            "s3://b:80",
            "s3://b?regoin=x",
            "s3://b?region=x/y",
            "s3://b?region=",
            "s3://b?scheme=ftp",
            "s3://b?addressing-style=x",
            "s3://b?endpoint=ftp://h",
            "s3://b?endpoint=http://me:Sesame@h",
            "s3://b?endpoint=h/path",
        ] {
            let Err(error) = address(text) else {
                panic!("{text}")
            };
            assert!(!error.contains("Sesame"), "{error}");
        }
    }

    #[test]
    fn queries_are_sorted() {
        assert_eq!(
            canonical_query("prefix=J&max-keys=2"),
            "max-keys=2&prefix=J"
        );
        assert_eq!(canonical_query("b&a=x/y&a=%7e"), "a=x%2Fy&a=~&b=");
        assert_eq!(canonical_query(""), "");
    }

    proptest! {
        #[test]
        fn canonical_paths_name_the_same_object(path in "(/[a-z+%=~ é./]{0,12}){1,4}") {
            let canonical = canonical_path(&path);
            prop_assert_eq!(&canonical_path(&canonical), &canonical);
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%/".contains(&byte);
            prop_assert!(canonical.bytes().all(is_plain), "{}", canonical);
            let decode = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
            prop_assert_eq!(decode(&canonical), decode(&path));
        }

        #[test]
        fn the_order_of_parameters_makes_no_difference(
            mut fields in proptest::collection::vec("[a-c+%]{1,3}=[a-c/ ]{0,3}", 0..5)
        ) {
            let query = canonical_query(&fields.join("&"));
            fields.reverse();
            prop_assert_eq!(canonical_query(&fields.join("&")), query);
        }
    }
}
