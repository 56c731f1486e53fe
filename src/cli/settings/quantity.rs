//! Numbers with units, as options, variables and settings files have them.
//!
//! A number may have a fraction, and blanks before its unit. What is ambiguous, such as `5KB`, is not accepted;
//! the `intended_` functions say how it is written.

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
    (&["s", "sec", "secs", "second", "seconds"], 1.0),
    (&["m", "min", "mins", "minute", "minutes"], 60.0),
    (&["h", "hour", "hours"], 3600.0),
    (&["d", "day", "days"], 24.0 * 3600.0),
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

/// The size that `text` probably means, as [`bytes`] reads it: a byte as a unit and a rate need no letters.
pub(super) fn intended_bytes(text: &str) -> Option<String> {
    let text = text.trim();
    let size = ["/s", "ps"].iter().find_map(|end| text.strip_suffix(end));
    let size = size.unwrap_or(text).trim_end();
    let short = size.strip_suffix(['B', 'b']).filter(|short| {
        let (_, unit) = split(short);
        !unit.is_empty()
    });
    let candidates = [Some(size), short].into_iter().flatten();
    let mut valid = candidates.filter(|size| bytes(size, 0).is_some());
    valid.next().map(str::to_owned)
}

/// A duration, such as `300ms`, `5s`, `2 min`, `1.5h`, `1h30m` or `1d`; a bare number is seconds. Only 0 is no
/// time at all. `None` for anything else.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    let mut larger_unit = f64::INFINITY;
    let is_bare = !rest.contains(|c: char| c.is_ascii_alphabetic());
    if is_bare {
        seconds = fraction(rest)?;
        rest = "";
    }

    // Each unit is smaller than the one before it.
    while !rest.is_empty() {
        let (number, unit_and_rest) = split(rest);
        let unit_end = unit_and_rest.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, behind) = unit_and_rest.split_at(unit_end.unwrap_or(unit_and_rest.len()));
        let unit_seconds = unit_of(&TIME_UNITS, unit).filter(|unit| *unit < larger_unit)?;
        seconds += fraction(number)? * unit_seconds;
        larger_unit = unit_seconds;
        rest = behind.trim_start();
    }

    let least = Duration::from_nanos(u64::from(seconds > 0.0));
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    Some(duration.max(least))
}

/// The duration that `text` probably means, as [`duration`] reads it.
pub(super) fn intended_duration(text: &str) -> Option<String> {
    let lower_case = text.trim().to_ascii_lowercase();
    // `5M` is a size.
    let is_size = text.trim().ends_with('M');
    (!is_size && duration(&lower_case).is_some()).then_some(lower_case)
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

    #[test]
    fn durations_may_have_several_units_and_their_names() {
        let durations = [
            "1h30m",
            "1d 2h",
            "1m 1.5 s",
            "5sec",
            "2 minutes",
            "1 hour",
            "3 days",
        ];
        let expected = [5400, 93_600, 61, 5, 120, 3600, 259_200];
        let seconds = durations.map(|text| duration(text).unwrap().as_secs());
        assert_eq!(seconds, expected);
        for text in ["1h30", "30m1h", "1m1m", "1h m", "1h-30m", "h1"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn what_was_meant_is_a_valid_quantity() {
        let sizes = ["5KB", "5 MB", "1.5gb", "5M/s", "5MB/s", "5MiB/s", "5MBps"];
        let intended = sizes.map(|text| intended_bytes(text).unwrap());
        assert_eq!(intended, ["5K", "5 M", "1.5g", "5M", "5M", "5MiB", "5M"]);
        for text in ["", "B", "5x", "5Mbit", "many"] {
            assert_eq!(intended_bytes(text), None, "{text}");
        }
        assert_eq!(intended_duration("5S").unwrap(), "5s");
        assert_eq!(
            intended_duration("1H30M"),
            None,
            "as `5M`, it ends with a size"
        );
        assert_eq!(intended_duration("5 weeks"), None);
    }
}
