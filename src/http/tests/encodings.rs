//! Nars that are sent with a `Content-Encoding`.

use std::io::Write as _;

use flate2::write::GzEncoder;
use url::Url;

use crate::format::compression::Compression;
use crate::http::error::HttpErrorKind;
use crate::http::testing::*;
use crate::http::*;

/// Bytes that begin as a nar does.
pub(super) fn nar() -> Vec<u8> {
    let text = (0..5000).map(|n| format!("{n} "));
    [
        &b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0"[..],
        text.collect::<String>().as_bytes(),
    ]
    .concat()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A brotli stream of one uncompressed metablock, and the last, empty one (RFC 7932, section 9).
pub(super) fn brotli(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 1).unwrap();
    assert!(length < 1 << 16);
    let header = (length << 4) | (1 << 20);
    [&header.to_le_bytes()[..3], bytes, b"\x03"].concat()
}

/// A server of `body` with these header fields, with its length or chunked.
fn serve(fields: &str, is_sized: bool, body: Vec<u8>) -> TestServer {
    let fields = fields.to_owned();
    TestServer::start(move |mut peer| {
        while peer.request().is_some() {
            let length = body.len();
            let framing = match is_sized {
                true => format!("Content-Length: {length}\r\n\r\n"),
                false => format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n"),
            };
            let head = "HTTP/1.1 200 OK\r\nETag: \"v\"\r\nAccept-Ranges: bytes\r\n";
            peer.send(format!("{head}{fields}{framing}").as_bytes());
            peer.send(&body);
            if !is_sized {
                peer.send(b"\r\n0\r\n\r\n");
            }
        }
    })
}

fn open(server: &TestServer, compression: Option<Compression>) -> NarBody {
    let request = NarRequest {
        compression,
        ..NarRequest::new(Url::parse(&server.url()).unwrap())
    };
    Client::new(quick()).unwrap().nar(request).unwrap()
}

fn read(mut body: NarBody) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next_chunk()? {
        assert!(!chunk.is_empty());
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(body.next_chunk()?, None);
    Ok(bytes)
}

#[test]
fn nars_are_decoded_in_step() {
    let nar = nar();
    for (encoding, body) in [
        ("gzip", gzip(&nar)),
        ("x-gzip", gzip(&nar)),
        ("GZIP", [gzip(&nar[..9]), gzip(&nar[9..])].concat()),
        ("deflate", zlib(&nar)),
        ("zstd", zstd(&nar)),
        ("br", brotli(&nar)),
        ("bzip2", bzip2(&nar)),
        ("gzip, zstd", zstd(&gzip(&nar))),
    ] {
        for is_sized in [true, false] {
            let fields = format!("Content-Encoding: {encoding}\r\n");
            let server = serve(&fields, is_sized, body.clone());
            for compression in [None, Some(Compression::None)] {
                let body = open(&server, compression);
                assert_eq!((body.content_length(), body.validator()), (None, None));
                assert_eq!(body.ranges(), RangeSupport::Denied, "{encoding}");
                assert_eq!(read(body).unwrap(), nar, "{encoding} {is_sized}");
            }
        }
    }
}

#[test]
fn names_that_stand_for_no_encoding_change_nothing() {
    for encoding in ["", "identity", "none", "binary", "aws-chunked", "utf-8"] {
        let fields = format!("Content-Encoding: {encoding}\r\n");
        let server = serve(&fields, true, nar());
        let body = open(&server, Some(Compression::None));
        assert_eq!(body.content_length(), Some(nar().len() as u64));
        assert!(body.ranges() == RangeSupport::Announced && body.validator().is_some());
        assert_eq!(read(body).unwrap(), nar(), "{encoding}");
    }
}

/// The header may be about the file itself, or wrong.
#[test]
fn the_compression_of_the_narinfo_tells_what_is_encoded() {
    let nar = nar();
    for (encoding, compression, body, file) in [
        // As Apache names the encoding of a file that is stored compressed.
        ("x-gzip", Compression::Gzip, gzip(&nar), gzip(&nar)),
        ("zstd", Compression::Zstd, zstd(&nar), zstd(&nar)),
        ("br", Compression::Brotli, brotli(&nar), brotli(&nar)),
        ("bzip2", Compression::Bzip2, bzip2(&nar), bzip2(&nar)),
        // Encoded once more.
        ("gzip", Compression::Gzip, gzip(&gzip(&nar)), gzip(&nar)),
        ("gzip", Compression::Zstd, gzip(&zstd(&nar)), zstd(&nar)),
        ("br", Compression::Gzip, brotli(&gzip(&nar)), gzip(&nar)),
        (
            "zstd",
            Compression::Brotli,
            zstd(&brotli(&nar)),
            brotli(&nar),
        ),
        // Not encoded at all.
        ("gzip", Compression::None, nar.clone(), nar.clone()),
        ("gzip", Compression::Zstd, zstd(&nar), zstd(&nar)),
        ("br", Compression::Gzip, gzip(&nar), gzip(&nar)),
    ] {
        let server = serve(&format!("Content-Encoding: {encoding}\r\n"), true, body);
        let received = read(open(&server, Some(compression))).unwrap();
        assert!(received == file, "{encoding} of {compression}");
    }
}

#[test]
fn an_early_end_is_a_cut_where_the_length_is_unknown() {
    let whole = gzip(&nar());
    let cut = whole[..whole.len() / 2].to_vec();
    for (is_sized, class) in [
        (true, HttpErrorClass::Refused),
        (false, HttpErrorClass::Transient),
    ] {
        let server = serve("Content-Encoding: gzip\r\n", is_sized, cut.clone());
        let error = read(open(&server, None)).unwrap_err();
        assert_eq!(error.class(), class, "{error:?}");
        assert_eq!(error.outage().is_some(), !is_sized);
    }

    let length = whole.len();
    let server = TestServer::start(move |mut peer| {
        peer.request();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n"
        );
        peer.send(head.as_bytes());
        peer.send(&cut);
        peer.close();
    });
    let error = read(open(&server, None)).unwrap_err();
    assert!(
        matches!(error.kind(), HttpErrorKind::Truncated { .. }),
        "{error:?}"
    );
}

#[test]
fn what_cannot_be_decoded_is_refused() {
    let mut damaged = gzip(&nar());
    let middle = damaged.len() / 2;
    damaged[middle..].fill(0xff);
    let server = serve("Content-Encoding: gzip\r\n", true, damaged);
    let mut body = open(&server, Some(Compression::None));
    let error = loop {
        match body.next_chunk() {
            Ok(chunk) => assert!(chunk.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.class(), HttpErrorClass::Refused);
    let text = error.without_url().to_string();
    let expected = "cannot decode the content encoding (gzip) of the response: ";
    assert!(text.starts_with(expected), "{text}");
    let again = body.next_chunk().unwrap_err();
    assert_eq!(again.to_string(), error.to_string(), "the error stays");
}

#[test]
fn an_encoding_that_gives_nothing_ends() {
    let empty = gzip(b"").repeat(1000);
    let server = TestServer::start(move |mut peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n");
        while peer.send(&empty) {}
    });
    for compression in [None, Some(Compression::Xz)] {
        let error = read(open(&server, compression)).unwrap_err();
        assert_eq!(error.class(), HttpErrorClass::Refused, "{error:?}");
    }
}

#[test]
fn a_range_of_an_encoded_body_is_not_one_of_the_file() {
    let server = TestServer::answering(|_| {
        let fields = "Content-Range: bytes 1-4/9\r\nContent-Encoding: gzip\r\n";
        response("206 Part", fields, "abcd")
    });
    let request = NarRequest {
        range: Some((1, Some(5))),
        ..NarRequest::new(Url::parse(&server.url()).unwrap())
    };
    let error = Client::new(quick()).unwrap().nar(request).unwrap_err();
    assert!(matches!(error.kind(), HttpErrorKind::WrongRange));
}
