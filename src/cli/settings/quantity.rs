//! Numbers with units, as options, variables and settings files have them.
//!
//! A number may have a fraction, and blanks before its unit.

use std::time::Duration;

use crate::http::whole_bytes;

/// What follows the number of a size, and the power of two it stands for. Units are binary.
const SIZE_UNITS: [(&[&str], u32); 5] = [
    (&["B"], 0),
    (&["K", "KIB"], 10),
    (&["M", "MIB"], 20),
    (&["G", "GIB"], 30),
    (&["T", "TIB"], 40),
];
/// What follows the number of a duration, and the seconds it stands for.
const TIME_UNITS: [(&[&str], f64); 5] = [
    (&["ms"], 0.001),
    (&["s"], 1.0),
    (&["m", "min"], 60.0),
    (&["h"], 3600.0),
    (&["d"], 24.0 * 3600.0),
];

/// A number of bytes, such as `500K`, `1.5 MiB` or `2G`, in upper or lower case. A bare number has
/// the unit of 2 to the power of `bare_shift` bytes. A part of a byte is one: 0 may have a meaning of its
/// own. `None` for anything else, and for 2^64 bytes and more.
pub(super) fn bytes(text: &str, bare_shift: u32) -> Option<u64> {
    let (number, unit) = split(text);
    let unit = unit.to_ascii_uppercase();
    let shift = match &*unit {
        "" => bare_shift,
        unit => unit_of(&SIZE_UNITS, unit)?,
    };
    let fraction = fraction(number)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }

    let bytes = fraction * (1_u64 << shift) as f64;
    let least = u64::from(bytes > 0.0);
    (bytes < u64::MAX as f64).then(|| whole_bytes(bytes).max(least))
}

/// A duration, such as `300ms`, `5s`, `2 min`, `1.5h` or `1d`; a bare number is seconds. Only 0 is no
/// time at all. `None` for anything else.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text);
    let unit_seconds = match unit {
        "" => 1.0,
        unit => unit_of(&TIME_UNITS, unit)?,
    };
    let seconds = fraction(number)? * unit_seconds;
    let least = Duration::from_nanos(u64::from(seconds > 0.0));
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    Some(duration.max(least))
}

/// The number in `text` and its unit.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let unit_start = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_start);
    (number.trim_end(), unit)
}

fn unit_of<T: Copy>(units: &[(&[&str], T)], name: &str) -> Option<T> {
    let found = units.iter().find(|(names, _)| names.contains(&name));
    found.map(|(_, unit)| *unit)
}

/// A number in digits, with or without a fraction.
fn fraction(text: &str) -> Option<f64> {
    let is_number = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let sizes = ["0", "17", "500K", "20 MiB", "1.5G", "1t", " 3 b ", "0.5k"];
        let expected = [0, 17, 500 << 10, 20 << 20, 3 << 29, 1 << 40, 3, 512];
        assert_eq!(sizes.map(|text| bytes(text, 0).unwrap()), expected);
        assert_eq!(
            ["0.0", ".5", "0.5B"].map(|text| bytes(text, 0)),
            [Some(0), Some(1), Some(1)]
        );
        assert_eq!(bytes("64", 10), Some(64 << 10));
        assert_eq!(bytes("64B", 10), Some(64));
        assert_eq!(bytes("18446744073709551615", 0), Some(u64::MAX));
        for text in [
            "",
            "M",
            "-1",
            "+1",
            "5x",
            "5KB",
            "1e3",
            "1.2.3",
            "99999999T",
            "NaN",
            "inf",
        ] {
            assert_eq!(bytes(text, 0), None, "{text}");
        }
    }

    #[test]
    fn durations_have_units_and_a_bare_number_is_seconds() {
        let durations = ["0", "5", "5s", "2m", "1h", "300ms", "1.5", "2 min", "1d"];
        let expected = [
            0, 5000, 5000, 120_000, 3_600_000, 300, 1500, 120_000, 86_400_000,
        ];
        let milliseconds = durations.map(|text| duration(text).unwrap().as_millis());
        assert_eq!(milliseconds, expected);
        for text in [
            "", "s", "-1", "+1", "5x", "1e400", "NaN", "inf", "5S", "5 weeks",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
