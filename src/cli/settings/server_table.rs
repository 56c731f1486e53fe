//! `[[server]]` tables: timeouts, retries and credentials of single servers.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::format::credentials::without_credentials;
use crate::format::server_url::ServerUrl;

use super::file_table::FileTable;
use super::table_names;
use super::value::{RetryCount, SettingValue, Timeout, invalid};

/// How long a server is retried without progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct RetryTime(pub(super) Duration);

impl TryFrom<toml::Value> for RetryTime {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        Duration::from_toml(value).map(Self)
    }
}

/// The server that a table is about.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct TableUrl(pub(super) ServerUrl);

impl TryFrom<String> for TableUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url = ServerUrl::parse(&text).map_err(|error| error.to_string());
        url.map(Self)
    }
}

/// The names in a table, and what they are for.
pub(crate) const SERVER_TABLE_HELP: &[(&str, &str)] = &[
    ("url", "The URL of the server. Required."),
    ("connect-timeout", "As the setting of this name."),
    ("stall-timeout", "As the setting of this name."),
    ("retries", "As the setting of this name."),
    ("retry-time", "As the setting of this name."),
    (
        "token-file",
        "A file with a token, which is sent as `Authorization: Bearer`.",
    ),
    (
        "header-file",
        "A file with header fields that are sent, one `NAME: VALUE` on each line.",
    ),
    (
        "client-cert-file",
        "A PEM file with the client certificate for TLS.",
    ),
    (
        "client-key-file",
        "A PEM file with its key, unless that is in the same file.",
    ),
];

fn names() -> Vec<&'static str> {
    SERVER_TABLE_HELP.iter().map(|(name, _)| *name).collect()
}

/// Timeouts and credentials of one server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ServerTable {
    pub(super) url: TableUrl,
    pub(super) connect_timeout: Option<Timeout>,
    pub(super) stall_timeout: Option<Timeout>,
    pub(super) retries: Option<RetryCount>,
    pub(super) retry_time: Option<RetryTime>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) header_file: Option<PathBuf>,
    pub(super) client_cert_file: Option<PathBuf>,
    pub(super) client_key_file: Option<PathBuf>,
}

impl ServerTable {
    fn parse(value: toml::Value) -> Result<Self, String> {
        if let Some(table) = value.as_table() {
            table_names::check(table, &names())?;
        }

        let table = value.try_into();
        table.map_err(|error: toml::de::Error| without_credentials(error.message()).into_owned())
    }
}

impl SettingValue for Vec<ServerTable> {
    fn from_text(text: &str) -> Result<Self, String> {
        Err(invalid(text, "a list of tables"))
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        let toml::Value::Array(values) = value else {
            return Err("it is not a list of tables; each one begins with `[[server]]`".to_owned());
        };

        let is_one = values.len() == 1;
        let mut tables = Self::new();
        let mut faults = Vec::new();
        for (index, value) in values.into_iter().enumerate() {
            match ServerTable::parse(value) {
                Ok(table) => tables.push(table),
                Err(fault) if is_one => faults.push(fault),
                Err(fault) => faults.push(format!("table {}: {fault}", index + 1)),
            }
        }

        if faults.is_empty() {
            Ok(tables)
        } else {
            Err(faults.join("; "))
        }
    }

    fn resolved(mut self, file: &FileTable) -> Self {
        for table in &mut self {
            let paths = [
                &mut table.token_file,
                &mut table.header_file,
                &mut table.client_cert_file,
                &mut table.client_key_file,
            ];
            for path in paths.into_iter().flatten() {
                *path = file.resolved(path);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(text: &str) -> Result<Vec<ServerTable>, String> {
        let mut table: toml::Table = text.parse().unwrap();
        Vec::from_toml(table.remove("server").unwrap())
    }

    #[test]
    fn every_name_that_is_suggested_is_one() {
        let full = "[[server]]\nurl = \"http://a\"\nconnect-timeout = 1\nstall-timeout = 1\n\
            retries = 1\nretry-time = 1\ntoken-file = \"a\"\nheader-file = \"a\"\n\
            client-cert-file = \"a\"\nclient-key-file = \"a\"";
        let given: Vec<&str> = full
            .lines()
            .filter_map(|line| Some(line.split_once(" = ")?.0))
            .collect();
        assert_eq!(given, names());
        assert_eq!(tables(full).unwrap().len(), 1);
    }

    #[test]
    fn each_invalid_table_is_reported_with_the_name_that_was_meant() {
        let error = tables(
            "[[server]]\nurl = \"http://a\"\ntokenfile = \"x\"\n[[server]]\nurl = \"http://a\"\n\
             [[server]]\nurl = \"ftp://me:Sesame@a\"",
        );
        let error = error.unwrap_err();
        let expected = "table 1: unknown name `tokenfile`; did you mean `token-file`?; table 3: ";
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("Sesame"), "{error}");
        assert!(tables("server = 1").is_err());
    }
}
