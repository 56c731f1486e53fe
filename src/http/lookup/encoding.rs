//! Narinfos that are stored encoded, as Nix's `narinfo-compression` writes them to object stores:
//! these send them with `Content-Encoding`, whatever was requested.
//!
//! The decoded text has the same limit as one that is sent plainly, and decoders may take some
//! megabytes. Methods that are not listed here are errors.

use std::io::{self, Read};
use std::sync::Arc;

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use crate::http::error::HttpErrorKind;

/// Decodes `body`, up to `limit_bytes`.
pub(super) fn decode(
    encoding: &str,
    body: &[u8],
    limit_bytes: u64,
) -> Result<Vec<u8>, HttpErrorKind> {
    let decoder =
        decoder(encoding, body).ok_or_else(|| HttpErrorKind::content_encoding(encoding))?;
    let mut text = Vec::new();
    decoder
        .and_then(|decoder| decoder.take(limit_bytes + 1).read_to_end(&mut text))
        .map_err(|error| HttpErrorKind::Malformed(Arc::new(error)))?;

    if text.len() as u64 > limit_bytes {
        return Err(HttpErrorKind::TooLarge { limit_bytes });
    }
    Ok(text)
}

fn decoder<'a>(encoding: &str, body: &'a [u8]) -> Option<io::Result<Box<dyn Read + 'a>>> {
    Some(match encoding.to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(body))),
        "deflate" => Ok(Box::new(flate2::bufread::ZlibDecoder::new(body))),
        "bzip2" | "x-bzip2" => Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(body))),
        "zstd" => zstd_decoder(body),
        "xz" => Stream::new_stream_decoder(XZ_MEMORY_BYTES, CONCATENATED)
            .map_err(io::Error::other)
            .map(|stream| Box::new(XzDecoder::new_stream(body, stream)) as Box<dyn Read + 'a>),
        _ => return None,
    })
}

fn zstd_decoder<'a>(body: &'a [u8]) -> io::Result<Box<dyn Read + 'a>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(Box::new(decoder))
}

/// Enough for `xz -8`.
const XZ_MEMORY_BYTES: u64 = 40 << 20;

/// 8 MiB, which every level but the `--ultra` ones has.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LIMIT_BYTES: u64 = 1000;

    fn encoded(text: &[u8]) -> [(&'static str, Vec<u8>); 5] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        gzip.write_all(text).unwrap();
        zlib.write_all(text).unwrap();
        bzip2.write_all(text).unwrap();
        xz.write_all(text).unwrap();
        [
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("bzip2", bzip2.finish().unwrap()),
            ("xz", xz.finish().unwrap()),
            ("zstd", zstd::encode_all(text, 3).unwrap()),
        ]
    }

    #[test]
    fn texts_are_decoded_up_to_the_limit() {
        let text = vec![b'x'; 1000];
        for (encoding, body) in encoded(&text) {
            assert_eq!(decode(encoding, &body, LIMIT_BYTES).unwrap(), text);
            let upper = encoding.to_uppercase();
            assert_eq!(decode(&upper, &body, LIMIT_BYTES).unwrap(), text);
        }
        // Ten times the limit, and a thousand times.
        for size in [10_000, 1_000_000] {
            for (encoding, body) in encoded(&vec![b'x'; size]) {
                let error = decode(encoding, &body, LIMIT_BYTES).unwrap_err();
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
    fn broken_and_unknown_encodings_are_errors() {
        for (encoding, mut body) in encoded(&[b'x'; 500]) {
            body.truncate(body.len() - 1);
            let cut = decode(encoding, &body, LIMIT_BYTES);
            assert!(
                matches!(cut, Err(HttpErrorKind::Malformed(_))),
                "{encoding}"
            );
            let other = decode(encoding, b"StorePath: x", LIMIT_BYTES);
            assert!(
                matches!(other, Err(HttpErrorKind::Malformed(_))),
                "{encoding}"
            );
        }
        for encoding in ["lzma", "gzip, zstd", ""] {
            let unknown = decode(encoding, b"", LIMIT_BYTES);
            assert!(
                matches!(unknown, Err(HttpErrorKind::ContentEncoding(_))),
                "{encoding}"
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
        let mut body = encoded(b"x")[3].1.clone();
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
        assert_eq!(
            decode("zstd", &zstd_with_window(23), LIMIT_BYTES).unwrap(),
            b"x"
        );
        assert_eq!(
            decode("xz", &xz_with_dictionary(25), LIMIT_BYTES).unwrap(),
            b"x"
        );
        for log in [24, 27] {
            assert!(decode("zstd", &zstd_with_window(log), LIMIT_BYTES).is_err());
        }
        for log in [26, 29] {
            assert!(decode("xz", &xz_with_dictionary(log), LIMIT_BYTES).is_err());
        }
    }
}
