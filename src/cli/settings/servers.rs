//! The substitute servers of a run.

use crate::format::server_url::ServerUrl;
use crate::format::store_path::{Dialect, StoreDir};
use crate::store::Layout;

use super::error::SettingsError;
use super::findings::SettingsFindings;
use super::table::SettingsLayer;

/// Guix's official servers.
const GUIX_SERVERS: [&str; 2] = ["https://bordeaux.guix.gnu.org", "https://ci.guix.gnu.org"];
/// Nix's official server.
const NIX_SERVERS: [&str; 1] = ["https://cache.nixos.org"];
/// The most discovered servers that are used, as in the stock client.
const DISCOVERED_MAX: usize = 50;

/// The servers that are named, or else the official ones, in order of preference. An invalid list is an
/// error among the findings.
pub(super) fn named(
    chosen: &SettingsLayer,
    layout: &Layout,
    findings: &mut SettingsFindings,
) -> Vec<ServerUrl> {
    let Some(setting) = &chosen.substitute_urls else {
        return official(layout.store_dir());
    };
    let parsed = parse_servers(&setting.value.0);
    let parsed = parsed.map_err(|message| SettingsError::value(&setting.origin, message));
    findings.value(parsed).unwrap_or_default()
}

/// The servers `named`, after those that were discovered if the settings want these.
pub(super) fn all(
    chosen: &SettingsLayer,
    layout: &Layout,
    named: Vec<ServerUrl>,
) -> Vec<ServerUrl> {
    match &chosen.discover {
        Some(setting) if setting.value => with_discovered(layout, named),
        _ => named,
    }
}

/// The official servers for a store.
pub(super) fn official(store_dir: &StoreDir) -> Vec<ServerUrl> {
    let urls: &[&str] = match store_dir.dialect() {
        Dialect::Guix => &GUIX_SERVERS,
        Dialect::Nix => &NIX_SERVERS,
    };
    urls.iter()
        .map(|url| ServerUrl::parse(url).expect("the official addresses are valid URLs"))
        .collect()
}

/// The servers in a blank-separated list, each once.
pub(crate) fn parse_servers(text: &str) -> Result<Vec<ServerUrl>, String> {
    let mut servers: Vec<ServerUrl> = Vec::new();
    for word in text.split_whitespace() {
        if has_several_urls(word) {
            return Err("separate URLs by blanks, not by commas".to_owned());
        }
        let server = ServerUrl::parse(word).map_err(|error| error.to_string())?;
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    Ok(servers)
}

/// Whether `word` is a list of URLs with commas between them.
fn has_several_urls(word: &str) -> bool {
    let mut behind_commas = word.split(',').skip(1);
    behind_commas.any(|part| {
        ["http://", "https://", "file:/"]
            .iter()
            .any(|start| part.starts_with(start))
    })
}

/// The servers that guix-daemon discovered in the local network, in front of `servers`.
fn with_discovered(layout: &Layout, servers: Vec<ServerUrl>) -> Vec<ServerUrl> {
    // Discovery is a convenience: without the file, or with a broken one, nothing is discovered.
    let text = std::fs::read_to_string(layout.discovered_servers()).unwrap_or_default();
    let mut all: Vec<ServerUrl> = text
        .lines()
        .filter_map(|line| ServerUrl::parse(line.trim()).ok())
        .filter(|server| !server.is_file())
        .take(DISCOVERED_MAX)
        .collect();

    for server in servers {
        if !all.contains(&server) {
            all.push(server);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_separated_by_blanks() {
        assert_eq!(parse_servers("http://a:1 http://b:2/x,y").unwrap().len(), 2);
        for text in ["http://a:1,http://b:2", "http://me:Sesame@a,https://b"] {
            let error = parse_servers(text).unwrap_err();
            assert!(error.contains("separate URLs by blanks"), "{error}");
            assert!(!error.contains("Sesame"), "{error}");
        }
    }
}
