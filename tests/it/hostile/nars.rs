//! Nars that are not the ones that were signed.

use super::Case;
use crate::support::fixture::flip;
use crate::support::listing::{snapshot, tree};
use crate::support::{Kind, item};

const METHODS: [&str; 5] = ["zstd", "lzip", "gzip", "xz", "none"];

/// With nothing but the downloads by `method`.
fn only(method: &str) -> Case {
    let case = Case::new();
    case.fixture.only(method);
    case
}

/// Turns one bit after another: the run is refused, or the bit did not matter, such as gzip's
/// time stamp, and the tree is right.
#[track_caller]
fn flipped_bits(method: &str) {
    let case = only(method);
    let nar = case.nar(method);
    let length = std::fs::read(&nar).unwrap().len();
    let right = std::fs::read_to_string(Kind::Guix.directory().join("expected.txt")).unwrap();
    let before = snapshot(&case.sandbox.root());
    let (mut tried, mut refused) = (0, 0);
    for position in (0..length).step_by(length / 17) {
        flip(&nar, position);
        tried += 1;
        let arguments = ["fetch", "--output", "tree", &case.tools];
        let ended = case.sandbox.subst(&case.fixture.url(), &arguments);
        if ended.code == Some(0) {
            let base = case.tools.rsplit('/').next().unwrap();
            for line in tree(&case.sandbox.path("tree"), base) {
                assert!(right.contains(&format!("{line}\n")), "{position}: {line}");
            }
            std::fs::rename(
                case.sandbox.path("tree"),
                case.sandbox.path(&position.to_string()),
            )
            .unwrap();
        } else {
            ended.exits(3).prints("");
            assert!(!case.sandbox.path("tree").exists());
            refused += 1;
        }
        flip(&nar, position);
    }
    assert!(
        refused * 10 >= tried * 8,
        "{refused} of {tried} were refused"
    );
    flip(&nar, length / 2);
    case.is_refused(3, "every download failed");
    assert_eq!(snapshot(&case.sandbox.root()), before);
}

#[test]
fn flipped_bits_zstd() {
    flipped_bits("zstd");
}

#[test]
fn flipped_bits_lzip() {
    flipped_bits("lzip");
}

#[test]
fn flipped_bits_gzip() {
    flipped_bits("gzip");
}

#[test]
fn flipped_bits_xz() {
    flipped_bits("xz");
}

#[test]
fn flipped_bits_uncompressed() {
    flipped_bits("none");
}

#[test]
fn truncated_nars_are_refused() {
    for method in METHODS {
        for keep in [0, 1, 200, usize::MAX] {
            let case = only(method);
            let nar = std::fs::read(case.nar(method)).unwrap();
            let keep = keep.min(nar.len() - 1);
            std::fs::write(case.nar(method), &nar[..keep]).unwrap();
            case.is_refused_from(&case.fixture.url(), 3, "every download failed");
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    for method in METHODS {
        for more in [&b"more"[..], &[0; 8]] {
            let case = only(method);
            let nar = std::fs::read(case.nar(method)).unwrap();
            std::fs::write(case.nar(method), [&nar, more].concat()).unwrap();
            // Zeros after gzip and lzip are padding to some decoders; the nar is right then.
            let ended = case.sandbox.subst(
                &case.fixture.url(),
                &["fetch", "--output", "tree", &case.tools],
            );
            assert!(matches!(ended.code, Some(3 | 0)), "{method}: {ended:?}");
            assert!(ended.code == Some(3) || more[0] == 0, "{method}: {ended:?}");
        }
    }
}

#[test]
fn the_nar_of_another_item_is_refused() {
    for method in METHODS {
        let case = only(method);
        std::fs::copy(case.fixture.nar(&item("copy"), method), case.nar(method)).unwrap();
        case.is_refused(3, "every download failed");
    }
}

#[test]
fn a_wrong_compression_method_is_refused() {
    for method in METHODS {
        let case = only(method);
        let other = if method == "zstd" { "gzip" } else { "zstd" };
        let (from, to) = (
            format!("Compression: {method}"),
            format!("Compression: {other}"),
        );
        case.fixture
            .edit(&case.tools, |text| text.replace(&from, &to));
        case.is_refused_from(&case.fixture.url(), 3, "every download failed");
    }
    let case = only("zstd");
    case.fixture.edit(&case.tools, |text| {
        text.replace("Compression: zstd", "Compression: middle-out")
    });
    case.is_refused_from(
        &case.fixture.url(),
        3,
        "no usable download: compression `middle-out` is not supported",
    );
}

/// A few kilobytes that decode to a gigabyte: no more is unpacked than was signed.
#[test]
fn a_decompression_bomb_is_cut_off() {
    let case = only("gzip");
    let zeros = std::io::Read::take(std::io::repeat(0), 256 << 20);
    let mut bomb = Vec::new();
    let mut packer = flate2::read::GzEncoder::new(zeros, flate2::Compression::fast());
    std::io::Read::read_to_end(&mut packer, &mut bomb).unwrap();
    std::fs::write(case.nar("gzip"), bomb).unwrap();
    case.is_refused_from(&case.fixture.url(), 3, "every download failed");
}

#[test]
fn a_bad_download_does_not_hide_a_good_one() {
    for method in METHODS {
        let case = Case::new();
        let nar = case.nar(method);
        flip(&nar, std::fs::read(&nar).unwrap().len() / 2);
        case.is_accepted();
    }
}
