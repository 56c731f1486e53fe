//! Facts about other processes from /proc. `None` where it has none: they only serve as hints.

use std::fs::File;
use std::io::Read as _;

/// The start time of process `pid`, in the kernel's clock ticks.
pub(super) fn start_time(pid: i32) -> Option<String> {
    stat_field(pid, 19)
}

/// The parent process of process `pid`.
pub(super) fn parent(pid: i32) -> Option<i32> {
    stat_field(pid, 1)?.parse().ok()
}

/// The program's name and arguments, each ended by a NUL, up to a limit.
pub(super) fn arguments(pid: i32) -> Option<Vec<u8>> {
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    let mut text = Vec::new();
    file.take(ARGUMENTS_BYTES_MAX).read_to_end(&mut text).ok()?;
    Some(text)
}

/// The kernel's default limit of a command line.
const ARGUMENTS_BYTES_MAX: u64 = 2 << 20;

/// A field of /proc/PID/stat, counted from the one behind the program's name.
fn stat_field(pid: i32, number: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses, and may contain any characters.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(number).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_facts_of_this_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(
            parent(own),
            Some(std::os::unix::process::parent_id().cast_signed())
        );
        let ours =
            std::env::args_os().flat_map(|word| [&word.into_encoded_bytes()[..], b"\0"].concat());
        assert!(
            arguments(own)
                .unwrap()
                .starts_with(&ours.collect::<Vec<_>>())
        );
        assert!(start_time(own).unwrap().parse::<u64>().is_ok());
        assert_eq!(start_time(i32::MAX), None);
    }
}
