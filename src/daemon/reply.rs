//! Replies to the daemon: their text, and the descriptor they go to.
//!
//! The daemon expects the whole status of a substitution in one `read`, so each reply is a single
//! write.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::fcntl_dupfd_cloexec;

use crate::format::hash::NarHash;
use crate::format::store_path::StoreDir;
use crate::substitute::download::choice;
use crate::substitute::item_lookup::ItemLookup;

/// The result of a substitution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubstituteReply {
    /// The tree has been unpacked and matches the signed hash.
    Success {
        /// The hash of its nar.
        nar_hash: NarHash,
        /// The size of its nar in bytes.
        nar_size: u64,
    },
    /// Every server sends other content.
    HashMismatch {
        /// The signed hash.
        expected: NarHash,
        /// The hash of the received nar.
        found: NarHash,
    },
    /// The item could not be downloaded.
    NotFound,
}

impl fmt::Display for SubstituteReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success { nar_hash, nar_size } => writeln!(f, "success {nar_hash} {nar_size}"),
            Self::HashMismatch { expected, found } => {
                writeln!(
                    f,
                    "hash-mismatch sha256 {} {}",
                    expected.base32(),
                    found.base32()
                )
            }
            Self::NotFound => writeln!(f, "not-found"),
        }
    }
}

/// The reply to `have`: those of `items` that have an authorized narinfo.
#[must_use]
pub(crate) fn have(items: &[ItemLookup], store_dir: &StoreDir) -> String {
    let mut text = String::new();
    for found in items.iter().filter(|found| found.authority.is_some()) {
        line(&mut text, store_dir.display(&found.path));
    }
    text.push('\n');
    text
}

/// The reply to `info`: the same, each with deriver, references, and the sizes of its download and
/// its nar.
#[must_use]
pub(crate) fn info(items: &[ItemLookup], store_dir: &StoreDir) -> String {
    let mut text = String::new();
    for found in items {
        let Some(authority) = &found.authority else {
            continue;
        };

        let narinfo = authority.narinfo();
        line(&mut text, store_dir.display(&found.path));
        match narinfo.deriver() {
            Some(deriver) => line(&mut text, store_dir.display(deriver)),
            None => text.push('\n'),
        }
        line(&mut text, narinfo.references_len());

        for reference in narinfo.references() {
            line(&mut text, store_dir.display(reference));
        }

        let offer = found.sources.first().map(|source| &source.offer);
        let download = offer.and_then(|offer| choice::smallest(offer)?.file_size);
        line(&mut text, download.unwrap_or(0));
        line(&mut text, narinfo.nar_size());
    }

    text.push('\n');
    text
}

fn line(text: &mut String, value: impl fmt::Display) {
    use fmt::Write as _;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{value}");
}

/// The descriptor that replies are written to.
#[derive(Debug)]
pub(crate) struct ReplyPort(File);

impl ReplyPort {
    /// The daemon's descriptor 4, or standard output if there is none, so that requests can be
    /// tried by hand. Must be called before the process opens a file that could get descriptor 4.
    ///
    /// # Errors
    /// Neither is writable.
    pub(crate) fn take() -> io::Result<Self> {
        if let Some(port) = inherited() {
            return Ok(Self(port.into()));
        }
        let stdout = fcntl_dupfd_cloexec(io::stdout().as_fd(), REPLY_DESCRIPTOR + 1)?;
        Ok(Self(stdout.into()))
    }

    /// Writes replies to `file`.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn to(file: File) -> Self {
        Self(file)
    }

    /// Whether the daemon has gone away: the other end of the pipe is closed.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        let mut ports = [PollFd::new(&self.0, PollFlags::empty())];
        // Those are reported without being waited for.
        let ends = PollFlags::ERR | PollFlags::HUP;
        poll(&mut ports, Some(&Timespec::default())).is_ok() && ports[0].revents().intersects(ends)
    }

    /// Sends one reply.
    ///
    /// # Errors
    /// The daemon has gone away.
    pub(crate) fn send(&mut self, reply: &str) -> io::Result<()> {
        self.0.write_all(reply.as_bytes())
    }
}

/// A copy of descriptor 4, if it is open and can be written to.
#[expect(
    unsafe_code,
    reason = "the daemon hands over a descriptor by its number alone"
)]
fn inherited() -> Option<OwnedFd> {
    // SAFETY: nothing in this process owns or closes that descriptor: if it is open, the parent
    // process opened it. If it is not, the system call fails.
    let inherited = unsafe { BorrowedFd::borrow_raw(REPLY_DESCRIPTOR) };
    let access = fcntl_getfl(inherited).ok()? & OFlags::RWMODE;
    let can_be_written = access == OFlags::WRONLY || access == OFlags::RDWR;
    can_be_written.then(|| fcntl_dupfd_cloexec(inherited, REPLY_DESCRIPTOR + 1).ok())?
}

const REPLY_DESCRIPTOR: RawFd = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_the_format_of_the_protocol() {
        let hash = |text: &str| NarHash::parse(text).unwrap().0;
        let one = hash("sha256:0iv2pnsjilm1chkany7jzwa05dq6n82i1hc8bpkmvw9fk9zphvqi");
        let other = hash("sha256:1c5xlnl4nfx8w07zdwz4mr38sk3dm69smsmprisir8h7919bwym7");
        let success = SubstituteReply::Success {
            nar_hash: one,
            nar_size: 8_003_480,
        };
        assert_eq!(
            success.to_string(),
            "success sha256:0iv2pnsjilm1chkany7jzwa05dq6n82i1hc8bpkmvw9fk9zphvqi 8003480\n"
        );
        let mismatch = SubstituteReply::HashMismatch {
            expected: one,
            found: other,
        };
        assert_eq!(
            mismatch.to_string(),
            "hash-mismatch sha256 0iv2pnsjilm1chkany7jzwa05dq6n82i1hc8bpkmvw9fk9zphvqi \
             1c5xlnl4nfx8w07zdwz4mr38sk3dm69smsmprisir8h7919bwym7\n"
        );
        assert_eq!(SubstituteReply::NotFound.to_string(), "not-found\n");
    }
}
