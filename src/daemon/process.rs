//! What /proc tells of other processes. `None` where it tells nothing: all of it is for hints.

/// When process `pid` started, in the kernel's ticks.
pub(super) fn start_time(pid: i32) -> Option<String> {
    stat_field(pid, 19)
}

/// The process that started process `pid`, or inherited it.
pub(super) fn parent(pid: i32) -> Option<i32> {
    stat_field(pid, 1)?.parse().ok()
}

/// The program's name and arguments; empty ones too.
pub(super) fn arguments(pid: i32) -> Option<Vec<Vec<u8>>> {
    let text = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(text.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect())
}

/// A field of /proc/PID/stat, counted from the one behind the program's name.
fn stat_field(pid: i32, number: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(number).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_of_this_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(parent(own), Some(std::os::unix::process::parent_id().cast_signed()));
        let ours: Vec<_> = std::env::args_os().map(|word| word.into_encoded_bytes()).collect();
        assert_eq!(arguments(own).unwrap()[..ours.len()], ours);
        assert!(start_time(own).unwrap().parse::<u64>().is_ok());
        assert_eq!(start_time(i32::MAX), None);
    }
}
