//! The values of settings as a settings file has them: what `subst config show` prints.

use std::path::PathBuf;
use std::time::Duration;

use crate::format::server_url::ServerUrl;
use crate::store::SyncMode;

use super::origin::{Origin, Setting};
use super::rate::{ByteRate, DayHours, MinimumByteRate};
use super::server_table::ServerTable;
use super::value::{
    ByteSize, Count, OptionForm, ProgressMode, SandboxMode, SettingValue, Timeout, WordList,
};

/// A setting to show.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShownSetting {
    /// The value, as a settings file has it.
    pub(crate) value: toml::Value,
    /// Where it was set.
    pub(crate) origin: Origin,
}

impl ShownSetting {
    pub(super) fn of(setting: &Setting<impl ShownValue>) -> Self {
        Self {
            value: setting.value.to_toml(),
            origin: setting.origin.clone(),
        }
    }
}

/// A value that can be written to a settings file, from which the same value is read.
pub(super) trait ShownValue {
    /// The value in a settings file.
    fn to_toml(&self) -> toml::Value;
}

impl ShownValue for String {
    fn to_toml(&self) -> toml::Value {
        self.clone().into()
    }
}

impl ShownValue for PathBuf {
    fn to_toml(&self) -> toml::Value {
        self.display().to_string().into()
    }
}

impl ShownValue for bool {
    fn to_toml(&self) -> toml::Value {
        (*self).into()
    }
}

impl ShownValue for WordList {
    fn to_toml(&self) -> toml::Value {
        self.0.split_whitespace().collect::<Vec<_>>().into()
    }
}

impl<const MIN: usize, const MAX: usize> ShownValue for Count<MIN, MAX> {
    fn to_toml(&self) -> toml::Value {
        i64::try_from(self.0).unwrap_or(i64::MAX).into()
    }
}

impl ShownValue for Duration {
    fn to_toml(&self) -> toml::Value {
        format!("{}s", self.as_secs_f64()).into()
    }
}

impl ShownValue for Timeout {
    fn to_toml(&self) -> toml::Value {
        self.0.to_toml()
    }
}

impl ShownValue for ByteSize {
    fn to_toml(&self) -> toml::Value {
        with_unit(self.0)
    }
}

impl ShownValue for ByteRate {
    fn to_toml(&self) -> toml::Value {
        with_unit(self.0)
    }
}

impl ShownValue for MinimumByteRate {
    fn to_toml(&self) -> toml::Value {
        match with_unit(self.0) {
            // A bare number would be KiB.
            toml::Value::Integer(bytes) => format!("{bytes}B").into(),
            with_unit => with_unit,
        }
    }
}

/// `bytes` in the largest unit that gives a whole number.
fn with_unit(bytes: u64) -> toml::Value {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    let fitting = UNITS
        .into_iter()
        .find(|(size, _)| bytes > 0 && bytes.is_multiple_of(*size));
    match fitting {
        Some((size, unit)) => format!("{}{unit}", bytes / size).into(),
        None => i64::try_from(bytes).unwrap_or(i64::MAX).into(),
    }
}

impl ShownValue for DayHours {
    fn to_toml(&self) -> toml::Value {
        format!("{}-{}", time_of_day(self.start), time_of_day(self.end)).into()
    }
}

fn time_of_day(since_midnight: Duration) -> String {
    let minutes = since_midnight.as_secs() / 60;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

impl ShownValue for ProgressMode {
    fn to_toml(&self) -> toml::Value {
        choice(self).into()
    }
}

impl ShownValue for SandboxMode {
    fn to_toml(&self) -> toml::Value {
        choice(self).into()
    }
}

impl ShownValue for SyncMode {
    fn to_toml(&self) -> toml::Value {
        choice(self).into()
    }
}

/// The name of the choice that stands for `value`.
fn choice<T: SettingValue + PartialEq>(value: &T) -> &'static str {
    let OptionForm::Choice(choices) = T::OPTION_FORM else {
        return "";
    };
    let names = choices.iter().map(|(name, _)| *name);
    let mut fitting = names.filter(|name| T::from_text(name).is_ok_and(|it| it == *value));
    fitting.next().unwrap_or_default()
}

impl ShownValue for Vec<ServerTable> {
    fn to_toml(&self) -> toml::Value {
        let tables = self.iter().map(|table| toml::Value::Table(as_table(table)));
        toml::Value::Array(tables.collect())
    }
}

fn as_table(table: &ServerTable) -> toml::Table {
    let optional = [
        ("connect-timeout", table.connect_timeout.map(shown)),
        ("stall-timeout", table.stall_timeout.map(shown)),
        ("retries", table.retries.map(shown)),
        ("retry-time", table.retry_time.map(|time| shown(time.0))),
        ("token-file", table.token_file.clone().map(shown)),
        ("header-file", table.header_file.clone().map(shown)),
        (
            "client-cert-file",
            table.client_cert_file.clone().map(shown),
        ),
        ("client-key-file", table.client_key_file.clone().map(shown)),
    ];
    let url = ("url", Some(with_credentials(&table.url.0).into()));
    let fields = std::iter::once(url).chain(optional);
    let fields = fields.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    fields.collect()
}

/// The URL as it was written; whoever prints it has to hide the credentials.
fn with_credentials(url: &ServerUrl) -> &str {
    let base = url.base();
    if base.username().is_empty() && base.password().is_none() {
        url.as_str()
    } else {
        base.as_str()
    }
}

fn shown(value: impl ShownValue) -> toml::Value {
    value.to_toml()
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    #[track_caller]
    fn assert_reads_back<T>(texts: &[&str])
    where
        T: SettingValue + ShownValue + PartialEq + Debug,
    {
        for text in texts {
            let value = T::from_text(text).unwrap();
            let written = value.to_toml();
            assert_eq!(T::from_toml(written.clone()), Ok(value), "{written}");
        }
    }

    #[test]
    fn a_shown_value_is_read_as_the_same_value() {
        assert_reads_back::<String>(&["", "a \"b\""]);
        assert_reads_back::<PathBuf>(&["/a b"]);
        assert_reads_back::<bool>(&["yes", "no"]);
        assert_reads_back::<WordList>(&["", "http://a http://b"]);
        assert_reads_back::<Count<0, 9>>(&["0", "9"]);
        assert_reads_back::<Duration>(&["0", "1.5", "300ms", "1h", "7ms"]);
        assert_reads_back::<Timeout>(&["1.5"]);
        assert_reads_back::<ByteSize>(&["0", "1", "1025", "3K", "2048M", "1T"]);
        assert_reads_back::<ByteRate>(&["0", "1025", "1.5M", "500K"]);
        assert_reads_back::<MinimumByteRate>(&["0", "64", "1M", "1025B"]);
        assert_reads_back::<DayHours>(&["08:00-18:30", "22:00-24:00"]);
        assert_reads_back::<ProgressMode>(&["auto", "json"]);
        assert_reads_back::<SandboxMode>(&["off", "require"]);
        assert_reads_back::<SyncMode>(&["none", "full"]);
    }

    #[test]
    fn shown_server_tables_are_read_as_the_same_tables() {
        let text = "[[server]]\nclient-cert-file = \"c\"\nconnect-timeout = \"1.5s\"\nretries = 3\n\
            retry-time = \"300s\"\nurl = \"http://a\"\n";
        let mut table: toml::Table = text.parse().unwrap();
        let server = table["server"].clone();
        let tables = Vec::<ServerTable>::from_toml(server).unwrap();
        let shown = tables.to_toml();
        assert_eq!(table.remove("server"), Some(shown));
    }
}
