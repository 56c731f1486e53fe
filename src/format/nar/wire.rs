//! How strings are encoded in a nar: the fixed ones as constants, and where the grammar leaves a
//! choice, as [`Keyword`]s.

/// The number of padding bytes behind a string of `len` bytes.
pub(super) const fn padding(len: u64) -> usize {
    (len.wrapping_neg() % 8) as usize
}

/// The encoding of `strings`, one after another, with lengths and padding.
pub(super) const fn fuse<const N: usize>(strings: &[&[u8]]) -> [u8; N] {
    let mut fused = [0; N];
    let (mut at, mut next) = (0, 0);
    while next < strings.len() {
        let string = strings[next];
        let length = (string.len() as u64).to_le_bytes();
        let mut byte = 0;
        while byte < 8 {
            fused[at + byte] = length[byte];
            byte += 1;
        }

        at += 8;
        byte = 0;
        while byte < string.len() {
            fused[at + byte] = string[byte];
            byte += 1;
        }

        at += string.len() + padding(string.len() as u64);
        next += 1;
    }

    assert!(at == N, "the length does not fit the strings");
    fused
}

pub(super) const fn fused_len(strings: &[&[u8]]) -> usize {
    let (mut len, mut next) = (0, 0);
    while next < strings.len() {
        len += 8 + strings[next].len() + padding(strings[next].len() as u64);
        next += 1;
    }
    len
}

/// The encoding of the given strings in a nar, as constant bytes.
macro_rules! fused {
    ($($string:literal),+) => {
        const {
            const STRINGS: &[&[u8]] = &[$($string),+];
            &$crate::format::nar::wire::fuse::<{ $crate::format::nar::wire::fused_len(STRINGS) }>(STRINGS)
        }
    };
}
pub(super) use fused;

/// A string where the grammar leaves a choice.
#[derive(Clone, Copy)]
pub(super) enum Keyword {
    Entry,
    Close,
    Regular,
    Symlink,
    Directory,
    Executable,
    Contents,
}

impl Keyword {
    /// The keyword whose string, with its padding, is `padded`.
    pub(super) fn parse(len: u64, padded: [u8; 16]) -> Option<Self> {
        let (keyword, string): (_, &[u8]) = match len {
            1 => (Self::Close, b")"),
            5 => (Self::Entry, b"entry"),
            7 if padded[0] == b'r' => (Self::Regular, b"regular"),
            7 => (Self::Symlink, b"symlink"),
            8 => (Self::Contents, b"contents"),
            9 => (Self::Directory, b"directory"),
            10 => (Self::Executable, b"executable"),
            _ => return None,
        };
        let (found, zeros) = padded.split_at(string.len());
        (found == string && zeros.iter().all(|&byte| byte == 0)).then_some(keyword)
    }
}
