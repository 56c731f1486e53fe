//! The types of settings about the rate of downloads.

use std::time::Duration;

use super::quantity;
use super::value::{SettingValue, invalid, invalid_quantity, out_of_range};

/// Bytes per second, written as `500K`, `5M` or `1.5G`; the units are binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteRate(pub(super) u64);

impl SettingValue for ByteRate {
    fn from_text(text: &str) -> Result<Self, String> {
        let rate = quantity::bytes(text, 0);
        if rate.is_some_and(|rate| (1..RATE_MIN).contains(&rate)) {
            let message = out_of_range(text, "smallest", "1K");
            return Err(format!("{message}, and 0 is no limit"));
        }
        rate_within(rate, RATE_MAX, text, "500K or 5M").map(Self)
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::from_text(&text),
            toml::Value::Integer(bytes) => Self::from_text(&bytes.to_string()),
            other => Err(invalid(&other.to_string(), "a rate, such as \"5M\"")),
        }
    }
}

/// The least bytes per second, written in the same way; a bare number is KiB per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MinimumByteRate(pub(super) u64);

impl SettingValue for MinimumByteRate {
    fn from_text(text: &str) -> Result<Self, String> {
        let rate = quantity::bytes(text, 10);
        rate_within(rate, MINIMUM_RATE_MAX, text, "64K, or 64 for the same").map(Self)
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::from_text(&text),
            toml::Value::Integer(kibibytes) => Self::from_text(&kibibytes.to_string()),
            other => Err(invalid(&other.to_string(), "a rate, such as \"64K\"")),
        }
    }
}

/// `rate`, which is written as `text`, if it is one and at most `max`.
fn rate_within(rate: Option<u64>, max: u64, text: &str, examples: &str) -> Result<u64, String> {
    match rate {
        Some(rate) if rate <= max => Ok(rate),
        Some(_) => Err(out_of_range(
            text,
            "largest",
            format_args!("{}G", max >> 30),
        )),
        None => {
            let expected = format!("a rate, such as {examples}");
            let intended = quantity::intended_bytes(text);
            Err(invalid_quantity(text, &expected, intended))
        }
    }
}

/// A lower rate is a mistake, such as a missing unit: downloads would stall.
const RATE_MIN: u64 = 1 << 10;
/// A higher rate is a mistake: 1 TiB/s.
const RATE_MAX: u64 = 1 << 40;
/// The same for a minimum: 1 GiB/s.
const MINIMUM_RATE_MAX: u64 = 1 << 30;

/// A part of each day, written as `08:00-18:00`. It may end on the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DayHours {
    /// Since midnight.
    pub(super) start: Duration,
    /// Since midnight.
    pub(super) end: Duration,
}

impl SettingValue for DayHours {
    fn from_text(text: &str) -> Result<Self, String> {
        let times = text.split_once('-');
        let times = times.and_then(|(start, end)| Some((time_of_day(start)?, time_of_day(end)?)));
        times
            .filter(|(start, end)| start != end)
            .map(|(start, end)| Self { start, end })
            .ok_or_else(|| invalid(text, "a part of the day, such as 08:00-18:00"))
    }
}

/// `08:30`, since midnight; up to `24:00`.
fn time_of_day(text: &str) -> Option<Duration> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let is_number = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) {
        return None;
    }
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let time = Duration::from_secs(hours * 3600 + minutes * 60);
    (minutes < 60 && time <= Duration::from_secs(24 * 3600)).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_binary_units() {
        let rates = ["0", "1024", "1.5K", "5M", "5 MiB", "2G"];
        let bytes = rates.map(|text| ByteRate::from_text(text).unwrap().0);
        assert_eq!(bytes, [0, 1024, 1536, 5 << 20, 5 << 20, 2 << 30]);
        for text in ["", "M", "-1", "5x", "NaN", "inf", "2000G", "5M/s"] {
            assert!(ByteRate::from_text(text).is_err(), "{text}");
        }
        assert_eq!(ByteRate::from_toml(7000.into()), Ok(ByteRate(7000)));
        assert_eq!(
            ByteRate::from_text("1.5T").unwrap_err(),
            "`1.5T` is out of range; the largest value is 1024G"
        );
        for text in [".5", "0.5B", "1", "700", "0.9K"] {
            assert_eq!(
                ByteRate::from_text(text).unwrap_err(),
                format!("`{text}` is out of range; the smallest value is 1K, and 0 is no limit")
            );
        }
        let minimum =
            ["64", "64K", "65536B", "1M"].map(|text| MinimumByteRate::from_text(text).unwrap().0);
        assert_eq!(minimum, [64 << 10, 64 << 10, 64 << 10, 1 << 20]);
        assert!(MinimumByteRate::from_text("2G").is_err());
    }

    #[test]
    fn hours_are_a_part_of_the_day() {
        let hours = DayHours::from_text("08:00-18:30").unwrap();
        assert_eq!(hours.start, Duration::from_secs(8 * 3600));
        assert_eq!(hours.end, Duration::from_secs(18 * 3600 + 1800));
        assert!(DayHours::from_text("22:00 - 06:00").is_ok());
        assert!(DayHours::from_text("00:00-24:00").is_ok());
        for text in [
            "",
            "8-18",
            "08:00",
            "08:60-09:00",
            "08:00-24:01",
            "+8:00-09:00",
        ] {
            assert!(DayHours::from_text(text).is_err(), "{text}");
        }
        assert!(
            DayHours::from_text("08:00-08:00").is_err(),
            "no time at all"
        );
    }
}
