//! The text of a settings file: its settings, and the line that each one is on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::cli::suggestion;
use crate::format::credentials::without_credentials;

use super::error::SettingsError;
use super::origin::Origin;

/// The settings in a file that were not taken yet.
pub(super) struct FileTable {
    path: PathBuf,
    /// The home directory of this user, if there is one.
    pub(super) home: Option<PathBuf>,
    settings: BTreeMap<String, FileSetting>,
}

struct FileSetting {
    line: usize,
    value: toml::Value,
}

impl FileTable {
    /// The settings in `text`, which is the content of the file `path`.
    ///
    /// # Errors
    /// It is not TOML, which is UTF-8.
    pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Self, SettingsError> {
        let text = std::str::from_utf8(text).map_err(|error| {
            let valid = std::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default();
            SettingsError::Syntax {
                path: path.to_owned(),
                line: line_at(valid, valid.len()),
                column: column_at(valid, valid.len()),
                message: "the text is not UTF-8".to_owned(),
            }
        })?;
        let parsed: Result<BTreeMap<Spanned<String>, toml::Value>, _> = toml::from_str(text);
        let parsed = parsed.map_err(|error: toml::de::Error| {
            let offset = error.span().map_or(0, |span| span.start);
            SettingsError::Syntax {
                path: path.to_owned(),
                line: line_at(text, offset),
                column: column_at(text, offset),
                // Without the line, which may contain a password.
                message: without_credentials(error.message()).into_owned(),
            }
        })?;

        let settings = parsed.into_iter().map(|(key, value)| {
            let line = line_at(text, key.span().start);
            (key.into_inner(), FileSetting { line, value })
        });
        Ok(Self {
            path: path.to_owned(),
            home: None,
            settings: settings.collect(),
        })
    }

    /// The setting `key` and its place, if the file has it.
    pub(super) fn take(&mut self, key: &'static str) -> Option<(toml::Value, Origin)> {
        let FileSetting { line, value } = self.settings.remove(key)?;
        let path = self.path.clone();
        Some((value, Origin::File { path, line, key }))
    }

    /// The path that `written` in the file means: below the home for `~/`, else relative to the file.
    pub(super) fn resolved(&self, written: &Path) -> PathBuf {
        match (written.strip_prefix("~"), &self.home) {
            (Ok(below), Some(home)) => home.join(below),
            _ => self.path.parent().unwrap_or(Path::new("")).join(written),
        }
    }

    /// An error for each setting that was not taken: a misspelled setting that is ignored is worse than
    /// none. `known` are the names of all settings.
    pub(super) fn unknown_settings(self, known: &[&'static str]) -> Vec<SettingsError> {
        let path = self.path;
        let unknown = self.settings.into_iter();
        unknown
            .map(
                |(name, FileSetting { line, .. })| SettingsError::UnknownSetting {
                    path: path.clone(),
                    line,
                    advice: suggestion::closest(&name, "", known.iter().copied()).map_or_else(
                        || format!("the settings are {}", known.join(", ")),
                        |intended| format!("did you mean `{intended}`?"),
                    ),
                    name: without_credentials(&name).into_owned(),
                },
            )
            .collect()
    }
}

/// The number of the line that the byte at `offset` is on.
fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}

/// The number of the character at `offset` in its line.
fn column_at(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    1 + line.chars().count()
}
