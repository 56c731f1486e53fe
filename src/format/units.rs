//! Numbers with units, for people.

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// A number of bytes with a binary unit, such as `12.3 MiB`.
#[must_use]
pub(crate) fn bytes(count: u64) -> String {
    let (divisor, unit) = unit_of(count);
    format!("{} {unit}", in_units(count, divisor))
}

/// Two sizes that are not equal, of a file and in its narinfo, so that their texts are not equal either.
#[must_use]
pub(crate) fn size_mismatch(found: u64, claimed: u64) -> String {
    let (mut found_text, mut claimed_text) = (bytes(found), bytes(claimed));
    if found_text == claimed_text {
        found_text = format!("{found} B");
        claimed_text = format!("{claimed} B");
    }
    format!("{found_text}, and its narinfo says {claimed_text}")
}

/// A number of bytes of a larger one, such as `40.2/75.6 MiB`.
#[must_use]
pub(crate) fn part_of_bytes(part: u64, whole: u64) -> String {
    let (divisor, unit) = unit_of(whole.max(part));
    let (part, whole) = (in_units(part, divisor), in_units(whole, divisor));
    format!("{part}/{whole} {unit}")
}

/// The largest unit that `count` has at least one of, and how many bytes that is.
fn unit_of(count: u64) -> (f64, &'static str) {
    let (mut divisor, mut unit) = (1.0, 0);
    while count as f64 / divisor >= 1024.0 && unit + 1 < UNITS.len() {
        divisor *= 1024.0;
        unit += 1;
    }
    (divisor, UNITS[unit])
}

fn in_units(count: u64, divisor: f64) -> String {
    if divisor > 1.0 {
        format!("{:.1}", count as f64 / divisor)
    } else {
        count.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_differ_look_different() {
        let text = size_mismatch(1 << 20, 3 << 20);
        assert_eq!(text, "1.0 MiB, and its narinfo says 3.0 MiB");
        let text = size_mismatch(5_000_120, 5_000_118);
        assert_eq!(text, "5000120 B, and its narinfo says 5000118 B");
    }

    #[test]
    fn both_numbers_have_the_unit_of_the_larger_one() {
        assert_eq!(part_of_bytes(0, 0), "0/0 B");
        assert_eq!(part_of_bytes(7, 1000), "7/1000 B");
        assert_eq!(part_of_bytes(1 << 10, 3 << 19), "0.0/1.5 MiB");
        assert_eq!(part_of_bytes(42_153_000, 79_300_000), "40.2/75.6 MiB");
    }
}
