//! Compression methods of nars, by the names that narinfos use.

use std::fmt;

/// How a nar is compressed for the download.
///
/// A new method also needs: its place in [`Compression::ALL`], a decoder (`codec::decode`), the
/// memory of that decoder (`codec::memory`), and assumptions about its speed and density
/// (`substitute::download::choice`). The compiler reports each of these that is missing, the first
/// one in a test.
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

    /// The match has to be extended, and so reminds of [`Compression::ALL`].
    #[test]
    fn all_methods_are_listed_in_the_order_of_declaration() {
        for (place, method) in Compression::ALL.into_iter().enumerate() {
            let declared = match method {
                Compression::None => 0,
                Compression::Lz4 => 1,
                Compression::Zstd => 2,
                Compression::Gzip => 3,
                Compression::Brotli => 4,
                Compression::Lzip => 5,
                Compression::Xz => 6,
                Compression::Bzip2 => 7,
            };
            assert_eq!(place, declared, "{method}");
        }
    }

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
