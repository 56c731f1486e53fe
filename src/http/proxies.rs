//! Which proxy is used for a URL. Pure.
//!
//! `hyper-util` has a matcher for these rules too, but its rules know no ports (`host:8080`), and no
//! `*.example.org`.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use crate::format::server_url::redacted;

/// The proxies to use.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Proxies {
    /// For http URLs.
    pub(crate) http: Option<Url>,
    /// For https URLs.
    pub(crate) https: Option<Url>,
    /// Hosts that need no proxy.
    pub(crate) no_proxy: NoProxy,
}

impl Proxies {
    /// The proxy for `url`; none: connect directly.
    #[must_use]
    pub(crate) fn for_url(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "http" => self.http.as_ref(),
            "https" => self.https.as_ref(),
            _ => None,
        }?;
        (!self.no_proxy.covers(url)).then_some(proxy)
    }
}

/// Whether responses to requests for `url` through `proxy` come from the proxy, which may have made
/// them itself: it reads the requests, and is not only a tunnel.
#[must_use]
pub(in crate::http) fn answers_itself(proxy: &Url, url: &Url) -> bool {
    url.scheme() == "http" && matches!(proxy.scheme(), "http" | "https")
}

/// Without the user names and passwords of the proxies.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [http, https] = [&self.http, &self.https].map(|url| url.as_ref().map(redacted));
        f.debug_struct("Proxies")
            .field("http", &http)
            .field("https", &https)
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// Hosts that need no proxy, as in the variable `no_proxy`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NoProxy(Vec<NoProxyRule>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum NoProxyRule {
    Everything,
    /// The host itself and every host below it, on this port or on all.
    Domain(String, Option<u16>),
    Network {
        address: IpAddr,
        prefix_bits: u32,
    },
}

impl NoProxy {
    /// The hosts listed in `text`, separated by commas or spaces: a domain (with what is
    /// below it; a leading dot makes no difference), `host:port`, an address, a network such as
    /// `10.0.0.0/8`, or `*`.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        let entries = text
            .split([',', ' ', '\t'])
            .filter(|entry| !entry.is_empty());
        Self(entries.map(NoProxyRule::parse).collect())
    }

    /// Whether `url` needs no proxy.
    #[must_use]
    pub(crate) fn covers(&self, url: &Url) -> bool {
        let Some(host) = url.host() else { return false };
        self.0
            .iter()
            .any(|rule| rule.covers(&host, url.port_or_known_default()))
    }
}

impl NoProxyRule {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self::Everything;
        }
        if let Some(network) = Self::parse_network(entry) {
            return network;
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (entry, None),
        };

        let host = host.trim_start_matches("*.").trim_matches(['.', '[', ']']);
        Self::Domain(host.to_ascii_lowercase(), port)
    }

    fn parse_network(entry: &str) -> Option<Self> {
        let (address, bits) = match entry.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
            None => (entry, None),
        };
        let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };

        Some(Self::Network {
            address,
            prefix_bits: bits.unwrap_or(all).min(all),
        })
    }

    fn covers(&self, host: &Host<&str>, port: Option<u16>) -> bool {
        match (self, host) {
            (Self::Everything, _) => true,
            (Self::Domain(domain, rule_port), host) => {
                let host = host.to_string();
                let host = host.trim_matches(['[', ']', '.']);
                let below = host
                    .strip_suffix(domain.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                below && (rule_port.is_none() || *rule_port == port)
            }
            (
                Self::Network {
                    address: IpAddr::V4(network),
                    prefix_bits,
                },
                Host::Ipv4(host),
            ) => {
                let difference = network.to_bits() ^ host.to_bits();
                difference.checked_shr(32 - prefix_bits).unwrap_or(0) == 0
            }
            (
                Self::Network {
                    address: IpAddr::V6(network),
                    prefix_bits,
                },
                Host::Ipv6(host),
            ) => {
                let difference = network.to_bits() ^ host.to_bits();
                difference.checked_shr(128 - prefix_bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(rules: &str, url: &str) -> bool {
        NoProxy::parse(rules).covers(&Url::parse(url).unwrap())
    }

    #[test]
    fn the_password_of_a_proxy_is_not_shown() {
        let proxies = Proxies {
            http: Url::parse("http://me:Sesame@proxy").ok(),
            ..Proxies::default()
        };
        let shown = format!("{proxies:?}");
        assert!(
            shown.contains("http://proxy/") && !shown.contains("Sesame"),
            "{shown}"
        );
    }

    #[test]
    fn the_scheme_chooses_the_proxy() {
        let proxy = Url::parse("http://proxy:3128").unwrap();
        let proxies = Proxies {
            https: Some(proxy.clone()),
            ..Proxies::default()
        };
        assert_eq!(
            proxies.for_url(&Url::parse("https://h/").unwrap()),
            Some(&proxy)
        );
        assert_eq!(proxies.for_url(&Url::parse("http://h/").unwrap()), None);
    }

    #[test]
    fn no_proxy_rules() {
        for (rules, url, expected) in [
            ("", "http://h/", false),
            ("*", "http://h/", true),
            ("example.org", "http://example.org/", true),
            ("example.org", "http://a.example.org/", true),
            (".example.org", "http://a.example.org/", true),
            ("*.example.org", "http://a.example.org/", true),
            ("example.org", "http://notexample.org/", false),
            ("a, Example.ORG", "http://example.org/", true),
            ("h:8080", "http://h:8080/", true),
            ("h:8080", "http://h/", false),
            ("h:443", "https://h/", true),
            ("127.0.0.1", "http://127.0.0.1:99/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("0.0.0.0/0", "http://11.1.2.3/", true),
            ("::1", "http://[::1]:80/", true),
            ("[fe80::]/10", "http://[fe80::1]/", true),
            ("fe80::/10", "http://[fec0::1]/", false),
        ] {
            assert_eq!(covers(rules, url), expected, "`{rules}` {url}");
        }
    }
}
