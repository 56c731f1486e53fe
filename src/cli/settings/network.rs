//! How servers are reached: timeouts, certificates, proxies.

use std::time::Duration;

use url::Url;

use crate::cli::env::{self, Environment};
use crate::cli::local_time;
use crate::cli::nix_conf::{NixConf, NixConfFile};
use crate::format::credentials::url_without_credentials;
use crate::format::server_url::{ServerUrl, percent_advice};
use crate::format::store_path::Dialect;
use crate::http::{self, CertificatePath};

use super::error::SettingsError;
use super::findings::SettingsFindings;
use super::origin::{Origin, Setting};
use super::rate::{ByteRate, DayHours};
use super::table::SettingsLayer;
use super::value::Timeout;

/// The options for connections, from `chosen` and the environment. What is invalid is an error among
/// the findings.
pub(super) fn options(
    chosen: &SettingsLayer,
    environment: &Environment,
    nix_conf: &NixConf,
    dialect: Dialect,
    findings: &mut SettingsFindings,
) -> http::Options {
    let mut options = http::Options {
        proxies: proxies(environment, findings),
        certificate_paths: certificate_paths(environment, nix_conf, dialect),
        ..http::Options::default()
    };

    if let Some(setting) = &chosen.insecure_tls
        && setting.value
    {
        options.verify_tls = http::TlsVerification::Insecure;
    }
    if let Some(setting) = &chosen.connect_timeout {
        options.connect_timeout = setting.value.0;
    }
    if let Some(setting) = &chosen.stall_timeout {
        options.stall_timeout = setting.value.0;
    }
    if let Some(setting) = &chosen.minimum_rate {
        options.minimum_rate.bytes_per_second = setting.value.0;
    }
    options.rate_limit = findings.value(rate_limit(chosen)).flatten();
    if let Some(setting) = &chosen.connections {
        options.mass_query_connections = setting.value.0;
    }

    options.server_timeouts = server_timeouts(chosen, &options);
    options
}

/// The certificates to use instead of the system's: those that variables name, else those of nix.conf.
///
/// Nix's variable comes before the general one for Nix's store only: where Nix is installed, its
/// profile sets it for every user.
fn certificate_paths(
    environment: &Environment,
    nix_conf: &NixConf,
    dialect: Dialect,
) -> Vec<CertificatePath> {
    let names = match dialect {
        Dialect::Guix => [env::SSL_CERT_FILE, env::NIX_SSL_CERT_FILE],
        Dialect::Nix => [env::NIX_SSL_CERT_FILE, env::SSL_CERT_FILE],
    };
    let mut names = names.into_iter();
    let file = names.find_map(|name| Some((environment.path(name)?, name)));
    let file = file.map(|(path, name)| CertificatePath {
        path,
        is_directory: false,
        named_by: name.to_owned(),
    });
    let directories = environment.path_list(env::SSL_CERT_DIR).into_iter();
    let directories = directories.map(|path| CertificatePath {
        path,
        is_directory: true,
        named_by: env::SSL_CERT_DIR.to_owned(),
    });

    let named: Vec<_> = file.into_iter().chain(directories).collect();
    if !named.is_empty() {
        return named;
    }
    let file = nix_conf.ssl_cert_file.iter();
    file.map(certificate_file).collect()
}

fn certificate_file(file: &NixConfFile) -> CertificatePath {
    CertificatePath {
        path: file.path.clone(),
        is_directory: false,
        named_by: file.named_by.clone(),
    }
}

/// The highest rate of all nars together. The hours are for the usual limit: one that was given as an
/// option applies now.
fn rate_limit(chosen: &SettingsLayer) -> Result<Option<http::RateLimit>, SettingsError> {
    let Some(Setting {
        value: ByteRate(bytes_per_second @ 1..),
        origin,
    }) = &chosen.limit_rate
    else {
        return Ok(None);
    };

    let hours = match &chosen.limit_rate_hours {
        Some(hours) if !matches!(origin, Origin::Option(_)) => Some(limit_hours(hours)?),
        _ => None,
    };
    Ok(Some(http::RateLimit {
        bytes_per_second: *bytes_per_second,
        hours,
    }))
}

fn limit_hours(setting: &Setting<DayHours>) -> Result<http::LimitHours, SettingsError> {
    let DayHours { start, end } = setting.value;
    let now = local_time::since_midnight();
    let now = now.map_err(|error| SettingsError::value(&setting.origin, error))?;
    Ok(http::LimitHours { start, end, now })
}

/// The timeouts of single servers.
fn server_timeouts(
    chosen: &SettingsLayer,
    options: &http::Options,
) -> Vec<(ServerUrl, http::Timeouts)> {
    let tables = chosen.server.iter().flat_map(|setting| &setting.value);
    let mut timeouts = Vec::new();
    for table in tables {
        let connect = table
            .connect_timeout
            .filter(|_| !is_option(&chosen.connect_timeout));
        let stall = table
            .stall_timeout
            .filter(|_| !is_option(&chosen.stall_timeout));
        timeouts.push((
            table.url.0.clone(),
            http::Timeouts {
                connect: or_general(connect, options.connect_timeout),
                stall: or_general(stall, options.stall_timeout),
            },
        ));
    }
    timeouts
}

fn or_general(own: Option<Timeout>, general: Duration) -> Duration {
    own.map_or(general, |timeout| timeout.0)
}

/// Whether the timeout was given as an option, which applies to all servers.
fn is_option(setting: &Option<Setting<Timeout>>) -> bool {
    let origin = setting.as_ref().map(|setting| &setting.origin);
    matches!(origin, Some(Origin::Option(_)))
}

fn proxies(environment: &Environment, findings: &mut SettingsFindings) -> http::Proxies {
    let [http, https] = [&["http_proxy"][..], &["https_proxy", "HTTPS_PROXY"]]
        .map(|names| findings.value(proxy(environment, names)).flatten());
    // Desktops name one here that is not supported (`socks://`), besides those that are used.
    let fallback = match (&http, &https) {
        (Some(_), Some(_)) => None,
        _ => {
            let named = proxy(environment, &["all_proxy", "ALL_PROXY"]);
            findings.value(named).flatten()
        }
    };
    let no_proxy = environment
        .first_text(&["no_proxy", "NO_PROXY"])
        .map_or("", |(_, text)| text);
    http::Proxies {
        http: http.or_else(|| fallback.clone()),
        https: https.or(fallback),
        no_proxy: http::NoProxy::parse(no_proxy),
    }
}

/// The proxy in the first of the variables `names` that is set.
fn proxy(environment: &Environment, names: &[&'static str]) -> Result<Option<Url>, SettingsError> {
    let Some((name, text)) = environment.first_text(names) else {
        return Ok(None);
    };

    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };

    // One slash behind a scheme would make the scheme a host, and the rest a path.
    let is_cut_scheme = text.contains(":/") && !text.contains("://");
    let parsed = Url::parse(&with_scheme);
    let parsed = parsed.ok().filter(|url| !is_cut_scheme && url.has_host());
    let shown = url_without_credentials(text);
    let advice = match parsed {
        Some(url) if matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h") => {
            return Ok(Some(url));
        }
        Some(_) => "; supported are http, https, socks5 and socks5h",
        None => percent_advice(&shown),
    };
    let message = format!("`{shown}` is not the URL of a proxy{advice}");
    Err(SettingsError::value(&Origin::Environment(name), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths<const N: usize>(
        variables: [(&str, &str); N],
        nix_conf: &NixConf,
        dialect: Dialect,
    ) -> Vec<String> {
        let paths = certificate_paths(&Environment::with(variables), nix_conf, dialect);
        paths
            .iter()
            .map(|named| {
                let end = if named.is_directory { "/" } else { "" };
                format!("{}: {}{end}", named.named_by, named.path.display())
            })
            .collect()
    }

    #[test]
    fn variables_name_certificates_and_else_nix_conf() {
        let nix_conf = NixConf {
            ssl_cert_file: Some(NixConfFile {
                path: "/n".into(),
                named_by: "ssl-cert-file in /c".to_owned(),
            }),
            ..NixConf::default()
        };
        let (file, nix_file) = (("SSL_CERT_FILE", "/a"), ("NIX_SSL_CERT_FILE", "/b"));
        let directories = ("SSL_CERT_DIR", "/d::/e");
        assert_eq!(
            paths([file], &nix_conf, Dialect::Nix),
            ["SSL_CERT_FILE: /a"]
        );
        assert_eq!(
            paths([file, nix_file, directories], &nix_conf, Dialect::Nix),
            [
                "NIX_SSL_CERT_FILE: /b",
                "SSL_CERT_DIR: /d/",
                "SSL_CERT_DIR: /e/"
            ]
        );
        let none = NixConf::default();
        assert_eq!(
            paths([nix_file, file], &none, Dialect::Guix),
            ["SSL_CERT_FILE: /a"]
        );
        assert_eq!(
            paths([nix_file], &none, Dialect::Guix),
            ["NIX_SSL_CERT_FILE: /b"]
        );
        let empty = [("SSL_CERT_FILE", ""), ("SSL_CERT_DIR", "")];
        assert_eq!(
            paths(empty, &nix_conf, Dialect::Nix),
            ["ssl-cert-file in /c: /n"]
        );
        assert_eq!(paths([], &none, Dialect::Guix), [""; 0]);
    }

    /// The proxy for http and that for https, or what is wrong.
    fn proxies_of<const N: usize>(variables: [(&str, &str); N]) -> Result<[String; 2], String> {
        let mut findings = SettingsFindings::default();
        let found = proxies(&Environment::with(variables), &mut findings);
        let shown = [found.http, found.https].map(|url| url.map_or(String::new(), Into::into));
        match findings.errors.first() {
            Some(error) => Err(error.to_string()),
            None => Ok(shown),
        }
    }

    #[test]
    fn proxies_of_other_kinds_are_refused() {
        for url in ["socks://h:1", "socks4://h:1", "socks4a://h", "ftp://h"] {
            for name in ["all_proxy", "ALL_PROXY", "http_proxy", "HTTPS_PROXY"] {
                let expected = format!(
                    "{name}: `{url}` is not the URL of a proxy; supported are http, https, socks5 and socks5h"
                );
                assert_eq!(proxies_of([(name, url)]), Err(expected));
            }
        }
        assert!(proxies_of([("all_proxy", "socks5:///h")]).is_err());
    }

    #[test]
    fn a_proxy_for_all_is_not_looked_at_if_each_scheme_has_its_own() {
        let (http, https) = (("http_proxy", "h:1"), ("https_proxy", "socks5h://s:2"));
        let expected = ["http://h:1/", "socks5h://s:2"].map(str::to_owned);
        assert_eq!(
            proxies_of([http, https, ("all_proxy", "socks://s:3")]),
            Ok(expected)
        );
        assert!(proxies_of([http, ("all_proxy", "socks://s:3")]).is_err());
    }
}
