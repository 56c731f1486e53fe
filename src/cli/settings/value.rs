//! The types of settings: how each is written as an option or a variable, and in a settings file.
//!
//! Every message about an invalid value is made here, without the credentials of a URL that was
//! given in the wrong place.

use std::ffi::OsStr;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::format::credentials::without_credentials;
use crate::store::SyncMode;

use super::file_table::FileTable;
use super::quantity;

/// How the option of a setting is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionForm {
    /// `--name`, which stands for `yes`.
    Flag,
    /// `--name VALUE`.
    Value,
    /// `--name VALUES`, repeatable.
    List,
    /// `--name VALUE` with one of these values, each with its meaning.
    Choice(&'static [(&'static str, &'static str)]),
}

/// The type of a setting.
pub(super) trait SettingValue: Sized {
    /// How its option is written.
    const OPTION_FORM: OptionForm = OptionForm::Value;
    /// Whether a text without any characters but blanks is a value.
    const MAY_BE_EMPTY: bool = false;

    /// The value that an option or a variable has.
    ///
    /// # Errors
    /// What is wrong with it.
    fn from_text(text: &str) -> Result<Self, String>;

    /// The same for a value that need not be UTF-8.
    ///
    /// # Errors
    /// What is wrong with it.
    fn from_os_text(text: &OsStr) -> Result<Self, String> {
        Self::from_text(text.to_str().ok_or("it is not UTF-8")?)
    }

    /// The value that a settings file has.
    ///
    /// # Errors
    /// What is wrong with it.
    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::from_text(&text),
            other => Err(invalid(&other.to_string(), "a string")),
        }
    }

    /// The value with its paths as `file` means them.
    fn resolved(self, _file: &FileTable) -> Self {
        self
    }
}

pub(super) fn invalid(text: &str, expected: &str) -> String {
    format!("`{}` is not {expected}", without_credentials(text))
}

/// The message about a quantity that is written in another way than the `intended` one.
pub(super) fn invalid_quantity(text: &str, expected: &str, intended: Option<String>) -> String {
    let message = invalid(text, expected);
    match intended {
        Some(intended) => format!("{message}; did you mean `{intended}`?"),
        None => message,
    }
}

/// The message about a value beyond the `limit`, which is the `smallest` or `largest` one.
pub(super) fn out_of_range(text: &str, end: &str, limit: impl fmt::Display) -> String {
    let text = without_credentials(text.trim());
    format!("`{text}` is out of range; the {end} value is {limit}")
}

impl SettingValue for String {
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl SettingValue for bool {
    const OPTION_FORM: OptionForm = OptionForm::Flag;

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "yes" | "true" | "1" => Ok(true),
            "no" | "false" | "0" => Ok(false),
            _ => Err(invalid(text, "`yes` or `no`")),
        }
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        value
            .as_bool()
            .ok_or_else(|| invalid(&value.to_string(), "`true` or `false`"))
    }
}

/// A list, separated by blanks; in a settings file also an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WordList(pub(super) String);

impl SettingValue for WordList {
    const OPTION_FORM: OptionForm = OptionForm::List;
    const MAY_BE_EMPTY: bool = true;

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Array(Vec<String>),
        }

        let shown = value.to_string();
        match value.try_into() {
            Ok(Form::Text(text)) => Ok(Self(text)),
            Ok(Form::Array(words)) => Ok(Self(words.join(" "))),
            Err(_) => Err(invalid(&shown, "a string or an array of strings")),
        }
    }
}

/// A number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct Count<const MIN: usize, const MAX: usize>(pub(super) usize);

impl<const MIN: usize, const MAX: usize> SettingValue for Count<MIN, MAX> {
    fn from_text(text: &str) -> Result<Self, String> {
        let number = text.trim().parse::<i128>();
        let number = number.map_err(|_| invalid(text, &format!("a number from {MIN} to {MAX}")))?;
        match usize::try_from(number) {
            Ok(number) if (MIN..=MAX).contains(&number) => Ok(Self(number)),
            _ if number < MIN as i128 => Err(out_of_range(text, "smallest", MIN)),
            _ => Err(out_of_range(text, "largest", MAX)),
        }
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Integer(number) => Self::from_text(&number.to_string()),
            other => Err(invalid(
                &other.to_string(),
                &format!("a number from {MIN} to {MAX}"),
            )),
        }
    }
}

impl<const MIN: usize, const MAX: usize> TryFrom<toml::Value> for Count<MIN, MAX> {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        Self::from_toml(value)
    }
}

/// A shorter duration is a mistake, except for 0.
const DURATION_MIN: Duration = Duration::from_millis(1);
/// A longer duration is a mistake.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Written as `300ms`, `5s`, `1m30s`, `1h` or `1d`; a bare number is seconds.
impl SettingValue for Duration {
    fn from_text(text: &str) -> Result<Self, String> {
        match quantity::duration(text) {
            Some(duration) if !duration.is_zero() && duration < DURATION_MIN => {
                Err(out_of_range(text, "smallest", "1ms"))
            }
            Some(duration) if duration <= DURATION_MAX => Ok(duration),
            Some(_) => Err(out_of_range(text, "largest", "7d")),
            None => Err(invalid_quantity(
                text,
                "a duration, such as 300ms, 5s, 1m30s, 1h or 1d",
                quantity::intended_duration(text),
            )),
        }
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::from_text(&text),
            toml::Value::Integer(seconds) => Self::from_text(&seconds.to_string()),
            toml::Value::Float(seconds) => Self::from_text(&seconds.to_string()),
            other => Err(invalid(&other.to_string(), "a duration, such as \"5s\"")),
        }
    }
}

/// A duration that is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct Timeout(pub(super) Duration);

impl Timeout {
    fn new(duration: Duration) -> Result<Self, String> {
        if duration.is_zero() {
            let text = "a timeout of 0 would fail every request; the smallest value is 1ms";
            return Err(text.to_owned());
        }
        Ok(Self(duration))
    }
}

impl SettingValue for Timeout {
    fn from_text(text: &str) -> Result<Self, String> {
        Self::new(Duration::from_text(text)?)
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        Self::new(Duration::from_toml(value)?)
    }
}

impl TryFrom<toml::Value> for Timeout {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        Self::from_toml(value)
    }
}

/// A number of bytes, written as `500K`, `20M` or `1.5G`, in binary units; a bare number is bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

impl SettingValue for ByteSize {
    fn from_text(text: &str) -> Result<Self, String> {
        quantity::bytes(text, 0).map(Self).ok_or_else(|| {
            let expected = "a number of bytes, such as 500K, 20M or 2G";
            invalid_quantity(text, expected, quantity::intended_bytes(text))
        })
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::from_text(&text),
            toml::Value::Integer(number) => Self::from_text(&number.to_string()),
            other => Err(invalid(
                &other.to_string(),
                "a number of bytes, such as \"20M\"",
            )),
        }
    }
}

/// The number of bytes that `text` is, for an option that is no setting.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    ByteSize::from_text(text).map(|size| size.0)
}

/// The period that `text` is, for an option that is no setting: at most about a hundred years.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_period(text: &str) -> Result<Duration, String> {
    const PERIOD_MAX: Duration = Duration::from_secs(36_500 * 24 * 3600);
    match quantity::duration(text) {
        Some(duration) if duration <= PERIOD_MAX => Ok(duration),
        Some(_) => Err(out_of_range(text, "largest", "36500d")),
        None => Err(invalid_quantity(
            text,
            "a duration, such as 12h, 3d or 30d",
            quantity::intended_duration(text),
        )),
    }
}

/// The number of days that `text` is, for an option that is no setting: at most about a century.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_days(text: &str) -> Result<u64, String> {
    match text.strip_suffix('d').unwrap_or(text).parse() {
        Ok(days) if days <= 36_500 => Ok(days),
        Ok(_) => Err(out_of_range(text, "largest", "36500")),
        Err(_) => Err(invalid(text, "a number of days, such as 7")),
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgressMode {
    /// Bars on a terminal, lines elsewhere.
    Auto,
    /// A line now and then.
    Plain,
    /// One JSON object a line, on standard error.
    Json,
    /// Nothing.
    None,
}

impl SettingValue for ProgressMode {
    const OPTION_FORM: OptionForm = OptionForm::Choice(&[
        ("auto", "bars on a terminal, lines elsewhere"),
        ("plain", "a line after 5 s, then every 10 s"),
        ("json", "one JSON object a line, on standard error"),
        ("none", "nothing"),
    ]);

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "plain" => Ok(Self::Plain),
            "json" => Ok(Self::Json),
            "none" => Ok(Self::None),
            _ => Err(invalid(text, "`auto`, `plain`, `json` or `none`")),
        }
    }
}

/// Whether the process is confined before it connects to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SandboxMode {
    /// If the kernel supports it.
    Auto,
    /// Without it nothing is done.
    Require,
    /// Never.
    Off,
}

impl SettingValue for SandboxMode {
    const OPTION_FORM: OptionForm = OptionForm::Choice(&[
        ("auto", "as far as the kernel supports it"),
        ("require", "fail if the kernel does not support all of it"),
        ("off", "never"),
    ]);

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "require" => Ok(Self::Require),
            "off" => Ok(Self::Off),
            _ => Err(invalid(text, "`auto`, `require` or `off`")),
        }
    }
}

impl SettingValue for SyncMode {
    const OPTION_FORM: OptionForm = OptionForm::Choice(&[
        (
            "none",
            "do not wait; a power cut may leave valid items with empty files",
        ),
        (
            "items",
            "an item becomes valid when all of it is on the disk",
        ),
        (
            "full",
            "the same, and what was reported as fetched stays valid",
        ),
    ]);

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "items" => Ok(Self::Items),
            "full" => Ok(Self::Full),
            _ => Err(invalid(text, "`none`, `items` or `full`")),
        }
    }
}

/// Retries in a row without progress.
pub(super) type RetryCount = Count<0, 1_000_000>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_below_the_smallest_is_not_zero() {
        for text in ["0.1ms", "0.0001", "0.00000000001s"] {
            assert_eq!(
                Duration::from_text(text).unwrap_err(),
                format!("`{text}` is out of range; the smallest value is 1ms")
            );
        }
        assert_eq!(Duration::from_text("0").unwrap(), Duration::ZERO);
        assert_eq!(Duration::from_text("1ms").unwrap().as_millis(), 1);
    }

    #[test]
    fn a_value_out_of_range_is_an_error_that_names_the_limit() {
        assert_eq!(Count::<1, 8>::from_text("8"), Ok(Count(8)));
        for (text, expected) in [
            ("0", "`0` is out of range; the smallest value is 1"),
            ("-1", "`-1` is out of range; the smallest value is 1"),
            ("9", "`9` is out of range; the largest value is 8"),
            (
                "99999999999999999999",
                "`99999999999999999999` is out of range; the largest value is 8",
            ),
            ("x", "`x` is not a number from 1 to 8"),
            ("", "`` is not a number from 1 to 8"),
        ] {
            assert_eq!(Count::<1, 8>::from_text(text).unwrap_err(), expected);
        }
        assert!(Timeout::from_text("0").is_err());
        for text in ["8d", "169h", "700000"] {
            let error = Duration::from_text(text).unwrap_err();
            assert!(error.ends_with("the largest value is 7d"), "{error}");
        }
    }

    fn assert_choices_are_values<T: SettingValue>() {
        let OptionForm::Choice(choices) = T::OPTION_FORM else {
            panic!("it has no choices");
        };
        for (name, _) in choices {
            assert!(T::from_text(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn every_choice_of_an_option_is_a_value() {
        assert_choices_are_values::<ProgressMode>();
        assert_choices_are_values::<SyncMode>();
    }
}
