//! Decoders behind one `Read`, for every method of [`Compression`].
//!
//! Streams may have several members (gzip, lzip, xz, bzip2) or frames (lz4, zstd with skippable
//! ones); all are read to the end. Bytes after the last member are an error. The input is
//! untrusted until the nar's hash has been checked, so each decoder's memory is bounded:
//! dictionaries of 256 MiB for lzip and xz, windows of 128 MiB for zstd and 16 MiB for brotli,
//! blocks of 4 MiB for lz4.
//! The size of the *output* is not bounded here: the caller stops reading at `NarSize`.
//!
//! Everything runs on the calling thread. For zstd and xz, [`super::decoders`] decodes pieces on
//! several threads, and agrees with these decoders on every input. gzip and bzip2 members and
//! brotli streams do not declare where they end. An lzip member does, but only in its last bytes, so that a whole member
//! would have to be collected to find out whether another one follows; `guix publish`, the only
//! server that offers lzip, always writes a single member.

use std::io::{self, BufRead, Read};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::brotli::BrotliReader;
use super::lz4::Lz4Reader;
use crate::format::compression::Compression;

/// The most memory that an lzip or xz stream may require, in bytes; `xz -9` requires 65 MiB.
pub(super) const MEMORY_LIMIT_BYTES: u64 = 256 << 20;

/// What streams may require of their decoders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecoderLimits {
    /// The memory of an lzip or xz stream.
    pub(crate) lzma_bytes: u64,
    /// The logarithm of the window of a zstd stream.
    pub(crate) zstd_window_log: u32,
}

impl DecoderLimits {
    /// For compressed nars.
    const NAR: Self = Self {
        lzma_bytes: MEMORY_LIMIT_BYTES,
        zstd_window_log: 27,
    };
}

/// A reader of the decoded bytes of `input`, which is compressed with `compression`.
///
/// # Errors
/// The decoder cannot be created (out of memory). Malformed, truncated or trailing input is an
/// error of the returned reader.
pub fn decoder<'a, R>(compression: Compression, input: R) -> io::Result<Box<dyn Read + Send + 'a>>
where
    R: BufRead + Send + 'a,
{
    decoder_within(DecoderLimits::NAR, compression, input)
}

/// The same with other limits.
pub(crate) fn decoder_within<'a, R>(
    limits: DecoderLimits,
    compression: Compression,
    input: R,
) -> io::Result<Box<dyn Read + Send + 'a>>
where
    R: BufRead + Send + 'a,
{
    Ok(match compression {
        Compression::None => Box::new(input),
        Compression::Lz4 => Box::new(Lz4Reader::new(input)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(limits.zstd_window_log)?;
            Box::new(decoder)
        }
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Brotli => Box::new(BrotliReader::new(input)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Compression::Lzip => {
            let stream = Stream::new_lzip_decoder(limits.lzma_bytes, CONCATENATED)?;
            Box::new(WholeInput(XzDecoder::new_stream(input, stream)))
        }
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(limits.lzma_bytes, CONCATENATED)?;
            Box::new(WholeInput(XzDecoder::new_stream(input, stream)))
        }
    })
}

/// Whether an error of a decoder says that there is too little memory, and nothing of its input.
pub(crate) fn is_out_of_memory(error: &io::Error) -> bool {
    // zstd's errors are texts, the C library's own.
    let zstd_code = ZSTD_ERROR_MEMORY_ALLOCATION.wrapping_neg();
    let inner = error.get_ref();
    error.kind() == io::ErrorKind::OutOfMemory
        || inner
            .and_then(|inner| inner.downcast_ref::<liblzma::stream::Error>())
            .is_some_and(|inner| *inner == liblzma::stream::Error::Mem)
        || error.to_string() == zstd::zstd_safe::get_error_name(zstd_code)
}

/// `ZSTD_error_memory_allocation` of `zstd_errors.h`; functions return it negated.
const ZSTD_ERROR_MEMORY_ALLOCATION: usize = 64;

/// liblzma's lzip decoder ignores trailing bytes, as the format allows; here the input has to end
/// where the output does.
struct WholeInput<R: BufRead>(XzDecoder<R>);

impl<R: BufRead> Read for WholeInput<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        if read == 0 && !buffer.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() {
            let text = "bytes follow the end of the compressed stream";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(read)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::hash::NarHash;
    use crate::format::narinfo::NarInfo;
    use crate::format::store_path::StoreDir;
    use sha2::Digest as _;
    use std::io::Write;
    use std::path::Path;

    #[test]
    fn too_little_memory_is_no_fault_of_the_input() {
        let zstd = zstd::zstd_safe::get_error_name(64_usize.wrapping_neg());
        assert_eq!(zstd, "Allocation error : not enough memory");
        for error in [
            io::Error::other(zstd),
            liblzma::stream::Error::Mem.into(),
            io::ErrorKind::OutOfMemory.into(),
        ] {
            assert!(is_out_of_memory(&error), "{error:?}");
        }

        for error in [
            io::Error::other("corrupt"),
            liblzma::stream::Error::Data.into(),
            liblzma::stream::Error::MemLimit.into(),
        ] {
            assert!(!is_out_of_memory(&error), "{error:?}");
        }
    }

    fn compress(method: Compression, bytes: &[u8]) -> Vec<u8> {
        match method {
            Compression::None => bytes.to_vec(),
            Compression::Zstd => zstd::encode_all(bytes, 3).unwrap(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Lzip => lzip_of(bytes),
            Compression::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Brotli => panic!("there is no encoder: see the streams of the fixtures"),
        }
    }

    /// An lzip member made from an LZMA "alone" stream: same coder, other header and trailer.
    pub(in crate::codec) fn lzip_of(bytes: &[u8]) -> Vec<u8> {
        let mut options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
        options.dict_size(1 << 20);
        let stream = Stream::new_lzma_encoder(&options).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(bytes).unwrap();
        let alone = encoder.finish().unwrap();
        let mut member = b"LZIP\x01\x14".to_vec();
        member.extend_from_slice(&alone[13..]);
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        member.extend_from_slice(&crc.sum().to_le_bytes());
        member.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        let size = member.len() as u64 + 8;
        member.extend_from_slice(&size.to_le_bytes());
        member
    }

    fn decode(method: Compression, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoder(method, bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn sample() -> Vec<u8> {
        (0..200_000u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect()
    }

    /// The methods whose streams may have several members or frames.
    fn methods_with_members() -> impl Iterator<Item = Compression> {
        Compression::ALL.into_iter().filter(|method| match method {
            Compression::None | Compression::Brotli => false,
            Compression::Lz4
            | Compression::Zstd
            | Compression::Gzip
            | Compression::Lzip
            | Compression::Xz
            | Compression::Bzip2 => true,
        })
    }

    #[test]
    fn reads_one_member_and_several() {
        let bytes = sample();
        for method in methods_with_members().chain([Compression::None]) {
            let once = compress(method, &bytes);
            assert_eq!(decode(method, &once).unwrap(), bytes, "{method}");
            let twice = [once.clone(), once].concat();
            assert_eq!(
                decode(method, &twice).unwrap(),
                [&bytes[..], &bytes].concat(),
                "{method}"
            );
        }
    }

    #[test]
    fn zstd_skips_skippable_frames() {
        let bytes = sample();
        let skippable = b"\x50\x2a\x4d\x18\x04\0\0\0skip".to_vec();
        let frame = compress(Compression::Zstd, &bytes);
        let stream = [skippable.clone(), frame, skippable].concat();
        assert_eq!(decode(Compression::Zstd, &stream).unwrap(), bytes);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = &sample()[..3000];
        for method in methods_with_members() {
            let whole = compress(method, bytes);
            for length in 0..whole.len() {
                // zstd takes nothing at all for zero frames; the nar reader refuses that.
                if length == 0 && method == Compression::Zstd {
                    continue;
                }
                assert!(
                    decode(method, &whole[..length]).is_err(),
                    "{method} cut at {length}"
                );
            }
        }
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        for method in methods_with_members() {
            let mut stream = compress(method, &sample());
            stream.extend_from_slice(b"garbage behind the end");
            assert!(decode(method, &stream).is_err(), "{method}");
        }
    }

    /// The nars that real Nix has compressed, with their hashes.
    fn streams_of_nix(method: Compression) -> Vec<(Vec<u8>, NarHash)> {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/nix")
            .join(method.name());
        let files = std::fs::read_dir(&cache)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let narinfos = files.filter(|path| path.extension().is_some_and(|name| name == "narinfo"));
        let streams = narinfos.map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let narinfo = NarInfo::parse(text, &StoreDir::parse(StoreDir::NIX).unwrap()).unwrap();
            let download = &narinfo.downloads()[0];
            assert_eq!(download.compression, Ok(method));
            let stream = std::fs::read(cache.join(narinfo.download_url(download))).unwrap();
            (stream, narinfo.nar_hash())
        });
        streams.collect()
    }

    #[test]
    fn what_nix_writes_is_read_to_its_end_and_no_further() {
        for method in [Compression::Brotli, Compression::Lz4] {
            let streams = streams_of_nix(method);
            assert_eq!(streams.len(), 7);
            for (stream, hash) in streams {
                let nar = decode(method, &stream).unwrap();
                let found = NarHash::from_bytes(sha2::Sha256::digest(&nar).into());
                assert_eq!(found, hash, "{method}");
                for capacity in [1, 7] {
                    let mut pieces = Vec::new();
                    let input = io::BufReader::with_capacity(capacity, &stream[..]);
                    decoder(method, input)
                        .unwrap()
                        .read_to_end(&mut pieces)
                        .unwrap();
                    assert!(pieces == nar, "{method} in pieces of {capacity}");
                }

                // A new stream behind the end would be one more frame of lz4.
                for more in [&b"\0"[..], b"garbage behind the end", b"\x04\x22\x4d\x18"] {
                    let longer = [&stream[..], more].concat();
                    assert!(decode(method, &longer).is_err(), "{method} with {more:?}");
                }
                let step = stream.len().div_ceil(50);
                for length in (0..stream.len()).step_by(step) {
                    let cut = decode(method, &stream[..length]);
                    assert!(cut.is_err(), "{method} cut at {length} of {}", stream.len());
                }
            }
        }
    }

    /// Neither method has a checksum of everything, so that wrong bytes may come out, for the nar's
    /// hash to refuse; but no panic, and no more memory than the limits.
    #[test]
    fn no_flipped_bit_makes_a_decoder_panic() {
        for method in [Compression::Brotli, Compression::Lz4] {
            let mut streams = streams_of_nix(method);
            streams.sort_by_key(|(stream, _)| stream.len());
            let stream = &streams[0].0;
            for bit in (0..stream.len() * 8).step_by(3) {
                let mut damaged = stream.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let reader = decoder(method, &damaged[..]).unwrap();
                let _ = io::copy(&mut reader.take(16 << 20), &mut io::sink());
            }
        }
    }
}
