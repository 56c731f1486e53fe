//! `Content-Encoding`: bodies that are sent encoded, whatever was requested.
//!
//! Object stores send what they hold (Nix's `narinfo-compression` writes encoded narinfos), and some
//! proxies encode what passes. `identity`, `none`, empty and unknown names leave a body as it is.
//! A wrong header does no harm: signatures and hashes decide about what comes out.
//!
//! The decoded text of a lookup has the same limit as one that is sent plainly. Nars are decoded in
//! step with their reader. A decoder may take some megabytes, and a body has at most
//! [`ENCODINGS_MAX`] encodings.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use crate::codec::decode::{DecoderLimits, decoder_within};
use crate::format::compression::Compression;
use crate::http::error::HttpErrorKind;

/// The encodings of a body, in the order in which they were applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::http) struct ContentEncodings(Vec<ContentEncoding>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentEncoding {
    Deflate,
    Compressed(Compression),
}

impl ContentEncodings {
    /// The encodings in the value of a header.
    #[cfg(test)]
    pub(in crate::http) fn parse(value: &str) -> Self {
        let mut encodings = Self::default();
        encodings.add(value);
        encodings
    }

    /// Adds the encodings in the value of one more header.
    pub(in crate::http) fn add(&mut self, value: &str) {
        let left = ENCODINGS_MAX - self.0.len();
        let named = value.split(',').filter_map(ContentEncoding::parse);
        self.0.extend(named.take(left));
    }

    pub(in crate::http) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A reader of what `input` was before it was encoded.
    pub(in crate::http) fn decoder<'a>(
        &self,
        input: impl BufRead + Send + 'a,
    ) -> io::Result<Box<dyn BufRead + Send + 'a>> {
        let mut reader: Box<dyn BufRead + Send + 'a> = Box::new(input);
        for encoding in self.0.iter().rev() {
            let decoder = encoding.decoder(reader)?;
            reader = Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder));
        }
        Ok(reader)
    }

    /// Decodes the whole `body`, up to `limit_bytes`.
    pub(in crate::http) fn decode(
        &self,
        body: Vec<u8>,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, HttpErrorKind> {
        if self.is_empty() {
            return Ok(body);
        }
        let mut text = Vec::new();
        let decoded = self
            .decoder(&body[..])
            .and_then(|decoder| decoder.take(limit_bytes + 1).read_to_end(&mut text));
        match decoded {
            Ok(_) if text.len() as u64 > limit_bytes => {
                Err(HttpErrorKind::TooLarge { limit_bytes })
            }
            Ok(_) => Ok(text),
            // A text with a header that is wrong: encoded bytes are not UTF-8.
            Err(_) if std::str::from_utf8(&body).is_ok() => Ok(body),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// The failure to decode a body.
    pub(in crate::http) fn failure(&self, cause: io::Error) -> HttpErrorKind {
        let names: Vec<&str> = self.0.iter().map(|encoding| encoding.name()).collect();
        HttpErrorKind::ContentEncoding {
            encodings: names.join(", "),
            cause: Arc::new(cause),
        }
    }
}

impl ContentEncoding {
    fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        let name = match name.get(..2) {
            Some(prefix) if prefix.eq_ignore_ascii_case("x-") => &name[2..],
            _ => name,
        };
        if name.eq_ignore_ascii_case("deflate") {
            return Some(Self::Deflate);
        }

        let method = Compression::ALL
            .into_iter()
            .find(|method| name.eq_ignore_ascii_case(method.name()))?;
        (method != Compression::None).then_some(Self::Compressed(method))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Deflate => "deflate",
            Self::Compressed(method) => method.name(),
        }
    }

    fn decoder<'a>(
        self,
        mut input: Box<dyn BufRead + Send + 'a>,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        match self {
            Self::Compressed(method) => decoder_within(LIMITS, method, input),
            // Some servers leave out the header of zlib.
            Self::Deflate if is_zlib(input.fill_buf()?) => {
                Ok(Box::new(flate2::bufread::ZlibDecoder::new(input)))
            }
            Self::Deflate => Ok(Box::new(flate2::bufread::DeflateDecoder::new(input))),
        }
    }
}

/// Whether `start` begins with a header of zlib (RFC 1950).
fn is_zlib(start: &[u8]) -> bool {
    match start {
        [method, flags, ..] => {
            method & 0xf == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
        }
        _ => true,
    }
}

/// The most encodings of one body; there is hardly ever more than one.
const ENCODINGS_MAX: usize = 2;

/// Enough for `xz -8`; RFC 9659 limits the windows of zstd to 8 MiB.
const LIMITS: DecoderLimits = DecoderLimits {
    lzma_bytes: 40 << 20,
    zstd_window_log: 23,
};

/// What a decoder gives at a time.
const BUFFER_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LIMIT_BYTES: u64 = 1000;

    fn encoded(text: &[u8]) -> [(&'static str, Vec<u8>); 6] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        let mut raw =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        gzip.write_all(text).unwrap();
        zlib.write_all(text).unwrap();
        raw.write_all(text).unwrap();
        bzip2.write_all(text).unwrap();
        xz.write_all(text).unwrap();
        [
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
            ("bzip2", bzip2.finish().unwrap()),
            ("xz", xz.finish().unwrap()),
            ("zstd", zstd::encode_all(text, 3).unwrap()),
        ]
    }

    fn decode(encoding: &str, body: &[u8]) -> Result<Vec<u8>, HttpErrorKind> {
        ContentEncodings::parse(encoding).decode(body.to_vec(), LIMIT_BYTES)
    }

    #[test]
    fn texts_are_decoded_up_to_the_limit() {
        let text = vec![b'x'; 1000];
        for (encoding, body) in encoded(&text) {
            assert_eq!(decode(encoding, &body).unwrap(), text);
            assert_eq!(decode(&encoding.to_uppercase(), &body).unwrap(), text);
            assert_eq!(decode(&format!("X-{encoding}"), &body).unwrap(), text);
        }
        // Ten times the limit, and a thousand times.
        for size in [10_000, 1_000_000] {
            for (encoding, body) in encoded(&vec![b'x'; size]) {
                let error = decode(encoding, &body).unwrap_err();
                assert!(
                    matches!(
                        error,
                        HttpErrorKind::TooLarge {
                            limit_bytes: LIMIT_BYTES
                        }
                    ),
                    "{encoding}: {error}"
                );
            }
        }
    }

    #[test]
    fn brotli_is_decoded() {
        // An uncompressed metablock of five bytes, and the last, empty one.
        let body = b"\x0b\x02\x80hello\x03";
        assert_eq!(decode("br", body).unwrap(), b"hello");
    }

    #[test]
    fn encodings_are_undone_in_reverse_order() {
        let [(_, gzip), ..] = encoded(b"text");
        let both = zstd::encode_all(&gzip[..], 3).unwrap();
        assert_eq!(decode("gzip, zstd", &both).unwrap(), b"text");
        let mut lines = ContentEncodings::parse("gzip");
        lines.add("aws-chunked,zstd");
        assert_eq!(lines, ContentEncodings::parse("gzip, zstd"));
        assert_eq!(ContentEncodings::parse("gzip, xz, zstd, br").0.len(), 2);
    }

    #[test]
    fn names_that_stand_for_no_encoding_are_ignored() {
        for name in [
            "",
            " ",
            ",",
            "identity",
            "Identity",
            "none",
            "binary",
            "utf-8",
            "aws-chunked",
            "x-",
            "é",
        ] {
            assert!(ContentEncodings::parse(name).is_empty(), "{name}");
            assert_eq!(decode(name, b"StorePath: x").unwrap(), b"StorePath: x");
        }
    }

    #[test]
    fn cut_bodies_are_errors_and_texts_with_a_wrong_header_are_not() {
        for (encoding, mut body) in encoded(&[b'x'; 500]) {
            assert_eq!(decode(encoding, b"StorePath: x").unwrap(), b"StorePath: x");
            body.truncate(body.len() - 1);
            if std::str::from_utf8(&body).is_ok() {
                continue;
            }
            let cut = decode(encoding, &body).unwrap_err();
            assert!(
                matches!(&cut, HttpErrorKind::ContentEncoding { encodings, .. } if encodings == encoding),
                "{encoding}: {cut:?}"
            );
        }
    }

    /// A zstd frame with one byte, for a window of `2^log` bytes.
    fn zstd_with_window(log: u8) -> [u8; 10] {
        let window = (log - 10) << 3;
        [0x28, 0xb5, 0x2f, 0xfd, 0, window, 9, 0, 0, b'x']
    }

    /// An xz file for a dictionary of `2^log` bytes.
    fn xz_with_dictionary(log: u8) -> Vec<u8> {
        let mut body = encoded(b"x")[4].1.clone();
        // The header of the first block follows the one of the file.
        let header = &mut body[12..24];
        assert_eq!(header[..4], [2, 0, 0x21, 1]);
        header[4] = (log - 12) * 2;
        let mut checksum = flate2::Crc::new();
        checksum.update(&header[..8]);
        header[8..].copy_from_slice(&checksum.sum().to_le_bytes());
        body
    }

    #[test]
    fn decoders_with_large_windows_are_refused() {
        assert_eq!(decode("zstd", &zstd_with_window(23)).unwrap(), b"x");
        assert_eq!(decode("xz", &xz_with_dictionary(25)).unwrap(), b"x");
        for log in [24, 27] {
            assert!(decode("zstd", &zstd_with_window(log)).is_err());
        }
        for log in [26, 29] {
            assert!(decode("xz", &xz_with_dictionary(log)).is_err());
        }
    }
}
