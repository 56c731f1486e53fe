//! Durations as people write them: `5s`, `2m`, `1h`, `300ms`; a bare number is seconds.

use std::time::Duration;

/// Longer durations are mistakes.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The duration that `text` stands for.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => Some(0.001),
        "" | "s" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let number = number.trim_end().parse::<f64>().ok();
    let duration = number
        .zip(seconds)
        .and_then(|(number, seconds)| Duration::try_from_secs_f64(number * seconds).ok());
    match duration {
        Some(duration) if duration <= DURATION_MAX => Ok(duration),
        Some(_) => Err(format!("`{text}` is more than 7 days")),
        None => Err(format!("`{text}` is not a duration, such as 5s, 2m or 1h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_a_bare_number_is_seconds() {
        let ms = |text| parse(text).unwrap().as_millis();
        assert_eq!(
            ["0", "5", "5s", "2m", "1h", "300ms", "1.5", "2 min"].map(ms),
            [0, 5000, 5000, 120_000, 3_600_000, 300, 1500, 120_000]
        );
        for text in [
            "", "s", "-1", "5 d", "5x", "1e400", "NaN", "inf", "8d", "169h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
