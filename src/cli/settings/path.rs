//! Paths as values of settings: in a settings file, they depend on where that file is.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::file_table::FileTable;
use super::value::SettingValue;

impl SettingValue for PathBuf {
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }

    fn from_os_text(text: &OsStr) -> Result<Self, String> {
        Ok(text.into())
    }

    fn resolved(self, file: &FileTable) -> Self {
        file.resolved(&self)
    }
}
