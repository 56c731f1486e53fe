//! Compression methods of nars, by the names that narinfos use.

use std::fmt;

/// How a nar is compressed for the download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Uncompressed.
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// Brotli.
    Brotli,
    /// lzip (LZMA).
    Lzip,
    /// xz (LZMA2).
    Xz,
    /// bzip2.
    Bzip2,
}

/// A narinfo names a method that this program cannot decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression method `{}`", .0.escape_debug())]
pub struct UnknownCompression(pub String);

impl Compression {
    /// Every method, fastest decoder first.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Lz4,
        Self::Zstd,
        Self::Gzip,
        Self::Brotli,
        Self::Lzip,
        Self::Xz,
        Self::Bzip2,
    ];

    /// The method called `name`.
    ///
    /// # Errors
    /// The method is not supported.
    pub fn parse(name: &str) -> Result<Self, UnknownCompression> {
        Self::ALL
            .into_iter()
            .find(|method| method.name() == name)
            .ok_or_else(|| UnknownCompression(name.to_owned()))
    }

    /// The method's name in narinfos.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Lzip => "lzip",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for method in Compression::ALL {
            assert_eq!(Compression::parse(method.name()), Ok(method));
        }
        assert_eq!(
            Compression::parse("Zstd"),
            Err(UnknownCompression("Zstd".into()))
        );
    }
}
