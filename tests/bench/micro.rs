//! What one narinfo, one signature and one nar entry cost, and decoding a nar on several cores.
//!
//! `cargo bench --bench micro`. Narinfos are those of the file that `SUBST_NARINFO_CORPUS` names
//! (zstd, an empty line between them), or one of the same size made here.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark has no better answer to a broken sample"
)]

use std::fmt::Write;
use std::io::{BufReader, Read};
use std::sync::Arc;

use data_encoding::BASE64;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use ed25519_dalek::Signer;
use subst::codec::decoders::{DecoderMemory, Decoders};
use subst::format::base32;
use subst::format::compression::Compression;
use subst::format::nar::{self, EntryName};
use subst::format::narinfo::NarInfo;
use subst::format::sexp::Sexp;
use subst::format::sha256::Sha256;
use subst::format::store_path::{Dialect, StoreDir, StorePathRef};
use subst::trust::acl::{Acl, AuthorizedKeys};
use subst::trust::guix::PublicKey;
use subst::trust::nix::{TrustedKeys, fingerprint};
use subst::trust::verdict;

const GUIX_NARINFO: &str = include_str!("../../fixtures/signatures/vector-a.narinfo");
const GUIX_KEY: &[u8] = include_bytes!("../../fixtures/signatures/vector-a.pub");
const HASH: &str = "sha256:01axkqflwrksipzgihrmiihc1xbk4bqvq4q0b3dcvf217ygqdgg8";

fn main() {
    divan::main();
}

fn nix_dir() -> StoreDir {
    StoreDir::parse(StoreDir::NIX).unwrap()
}

fn guix_dir() -> StoreDir {
    StoreDir::parse(StoreDir::GUIX).unwrap()
}

/// A narinfo of 2.1 KB with 40 references, the mean of the corpus, and the key that signed it.
fn nix_sample() -> (String, AuthorizedKeys) {
    let item = |n: usize| format!("{n:032}-item-1.{n}");
    let references: Vec<_> = (100..140).map(item).collect();
    let mut text = format!(
        "StorePath: /nix/store/{}\nURL: nar/x.nar.xz\nCompression: xz\nFileHash: {HASH}\n\
         FileSize: 5\nNarHash: {HASH}\nNarSize: 7\nReferences: {}\n",
        item(1),
        references.join(" ")
    );
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let covered = fingerprint(&NarInfo::parse(&*text, &nix_dir()).unwrap(), &nix_dir());
    let signature = key.sign(covered.as_bytes()).to_bytes();
    writeln!(text, "Sig: a:{}", BASE64.encode(&signature)).unwrap();
    let keys = format!("a:{}", BASE64.encode(key.verifying_key().as_bytes()));
    (
        text,
        AuthorizedKeys::Nix(TrustedKeys::parse(&keys).unwrap()),
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the corpus is not part of the repository"
)]
fn corpus() -> Vec<String> {
    let Some(path) = std::env::var_os("SUBST_NARINFO_CORPUS") else {
        return vec![nix_sample().0];
    };
    let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    text.split("\n\n")
        .filter(|text| !text.is_empty())
        .map(|text| format!("{text}\n"))
        .collect()
}

fn authorize(narinfo: &Arc<NarInfo>, keys: &AuthorizedKeys, dir: &StoreDir) {
    let asked = StorePathRef::parse(narinfo.store_path().base()).unwrap();
    verdict::authorize(Arc::clone(narinfo), asked, keys, dir).unwrap();
}

#[divan::bench]
fn narinfo_parse(bencher: Bencher<'_, '_>) {
    let (texts, dir) = (corpus(), nix_dir());
    let bytes: usize = texts.iter().map(String::len).sum();
    bencher
        .counter(ItemsCount::new(texts.len()))
        .counter(BytesCount::new(bytes))
        .bench(|| {
            for text in &texts {
                black_box(NarInfo::parse(black_box(&**text), &dir).unwrap());
            }
        });
}

#[divan::bench]
fn guix_narinfo_parse_and_authorize(bencher: Bencher<'_, '_>) {
    let dir = guix_dir();
    let mut acl = Acl::official_guix_servers();
    acl.authorize(PublicKey::parse(GUIX_KEY).unwrap());
    let keys = AuthorizedKeys::Guix(acl);
    bencher.counter(ItemsCount::new(1u32)).bench(|| {
        let narinfo = NarInfo::parse(black_box(GUIX_NARINFO), &dir).unwrap();
        authorize(&Arc::new(narinfo), &keys, &dir);
    });
}

/// As lookups do it: many at once, with a key that is in use.
#[divan::bench]
fn guix_narinfos_parse_and_authorize_together(bencher: Bencher<'_, '_>) {
    const TOGETHER: usize = 32;
    let dir = guix_dir();
    let mut acl = Acl::default();
    acl.authorize(PublicKey::parse(GUIX_KEY).unwrap());
    let keys = AuthorizedKeys::Guix(acl);
    let asked = StorePathRef::parse("0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0").unwrap();
    bencher.counter(ItemsCount::new(TOGETHER)).bench(|| {
        let claims = (0..TOGETHER).map(|_| {
            (
                Arc::new(NarInfo::parse(black_box(GUIX_NARINFO), &dir).unwrap()),
                asked,
            )
        });
        for verdict in verdict::authorize_all(claims.collect(), &keys, &dir) {
            verdict.unwrap();
        }
    });
}

#[divan::bench]
fn nix_narinfo_authorize(bencher: Bencher<'_, '_>) {
    let dir = nix_dir();
    let (text, keys) = nix_sample();
    let narinfo = Arc::new(NarInfo::parse(text, &dir).unwrap());
    bencher
        .counter(ItemsCount::new(1u32))
        .bench(|| authorize(&narinfo, &keys, &dir));
}

#[divan::bench]
fn sexp_parse(bencher: Bencher<'_, '_>) {
    let text = Acl::official_guix_servers().to_string();
    bencher
        .counter(BytesCount::of_str(&text))
        .bench(|| Sexp::parse(black_box(text.as_bytes())));
}

/// One directory of 50,000 files of 100 bytes; the contents are read as an unpacker would.
#[divan::bench]
fn nar_read_small_files(bencher: Bencher<'_, '_>) {
    const FILES: u32 = 50_000;
    let mut writer = nar::NarWriter::new(Vec::new());
    writer.directory(None).unwrap();
    for file in 0..FILES {
        let name = EntryName::new(format!("file-{file:06}").as_bytes()).unwrap();
        writer
            .file(Some(&name), false, 100, &[b'x'; 100][..])
            .unwrap();
    }
    writer.end_directory().unwrap();
    let nar = writer.finish().unwrap();
    let counters = (ItemsCount::new(FILES), BytesCount::new(nar.len()));
    bencher.counter(counters.0).counter(counters.1).bench(|| {
        let mut reader =
            nar::NarReader::new(BufReader::with_capacity(64 << 10, &nar[..]), Dialect::Guix);
        let mut buffer = [0; 100];
        while let Some(event) = reader.next().unwrap() {
            if let nar::NarEvent::File { .. } = event {
                reader.contents().read_exact(&mut buffer).unwrap();
            }
        }
    });
}

#[divan::bench]
fn base32_encode() -> String {
    base32::encode(black_box(&[0x5a; 32]))
}

#[divan::bench]
fn base32_decode() -> [u8; 32] {
    base32::decode(black_box(&HASH["sha256:".len()..])).unwrap()
}

/// Sixteen pieces of `MIB` MiB each, about as compressible as programs are.
fn pieces(mib: usize) -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(7);
    let words: Vec<Vec<u8>> = (0..4000)
        .map(|_| (0..random.usize(3..24)).map(|_| random.u8(..)).collect())
        .collect();
    let mut piece = || {
        let mut bytes = Vec::with_capacity((mib << 20) + 24);
        while bytes.len() < mib << 20 {
            bytes.extend_from_slice(&words[random.usize(..words.len())]);
        }
        bytes.truncate(mib << 20);
        bytes
    };
    (0..16).map(|_| piece()).collect()
}

/// Decodes `packed`, a nar of `size` bytes, on so many cores.
fn decode(
    bencher: Bencher<'_, '_>,
    compression: Compression,
    packed: &[u8],
    size: usize,
    cores: usize,
) {
    let memory = DecoderMemory {
        streams_bytes: 28 << 20,
        all_bytes: 56 << 20,
    };
    let decoders = Decoders::new(memory, cores);
    let mut buffer = vec![0; 256 << 10];
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let mut left = size;
        let read = |reader: &mut dyn Read| {
            while left > 0 {
                left -= reader.read(&mut buffer).unwrap();
            }
        };
        decoders.decode(compression, packed, read).unwrap();
    });
}

/// Small nars one after another, as `guix publish` compresses them: with the context of the nar
/// before, or with a new one for each.
#[divan::bench(args = [true, false])]
fn zstd_nars_with_kept_context(bencher: Bencher<'_, '_>, is_kept: bool) {
    const NARS: usize = 16;
    let nar = &pieces(1)[0][..256 << 10];
    let packed = zstd::encode_all(nar, 9).unwrap();
    let memory = DecoderMemory {
        streams_bytes: 28 << 20,
        all_bytes: 56 << 20,
    };
    let mut decoders = Decoders::new(memory, 1);

    bencher
        .counter(BytesCount::new(NARS * nar.len()))
        .bench_local(|| {
            for _ in 0..NARS {
                if !is_kept {
                    decoders = Decoders::new(memory, 1);
                }
                let read = |reader: &mut dyn Read| std::io::copy(reader, &mut std::io::sink());
                decoders
                    .decode(Compression::Zstd, &packed[..], read)
                    .unwrap()
                    .unwrap();
            }
        });
}

/// A nar of 16 zstd frames of 4 or 16 MiB, as newer Nix writes them. Two cores are for others.
#[divan::bench(args = [(4, 1), (4, 4), (16, 1), (16, 4)], sample_count = 10)]
fn zstd_frames_mib_cores(bencher: Bencher<'_, '_>, (mib, cores): (usize, usize)) {
    let packed: Vec<_> = pieces(mib)
        .iter()
        .map(|p| zstd::bulk::compress(p, 3).unwrap())
        .collect();
    decode(
        bencher,
        Compression::Zstd,
        &packed.concat(),
        (mib << 20) * 16,
        cores,
    );
}

/// A nar of 16 xz blocks of 1 or 4 MiB.
#[divan::bench(args = [(1, 1), (1, 2), (4, 1), (4, 2)], sample_count = 5)]
fn xz_blocks_mib_cores(bencher: Bencher<'_, '_>, (mib, cores): (usize, usize)) {
    let mut stream = liblzma::stream::MtStreamBuilder::new();
    let stream = stream
        .preset(1)
        .threads(2)
        .block_size((mib as u64) << 20)
        .encoder()
        .unwrap();
    let bytes = pieces(mib).concat();
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new_stream(&bytes[..], stream)
        .read_to_end(&mut packed)
        .unwrap();
    decode(bencher, Compression::Xz, &packed, bytes.len(), cores);
}

/// What unpacking a file does: its bytes, for two streams.
#[divan::bench]
fn sha256_two_in_turns(bencher: Bencher<'_, '_>) {
    hash_two(bencher, |one, other, bytes| {
        one.update(bytes);
        other.update(bytes);
    });
}

#[divan::bench]
fn sha256_two_in_step(bencher: Bencher<'_, '_>) {
    hash_two(bencher, |one, other, bytes| {
        one.update_both(bytes, other, bytes)
    });
}

fn hash_two(bencher: Bencher<'_, '_>, update: impl Fn(&mut Sha256, &mut Sha256, &[u8]) + Sync) {
    let bytes = vec![7; 256 << 10];
    bencher.counter(BytesCount::new(2 * bytes.len())).bench(|| {
        let (mut one, mut other) = (Sha256::new(), Sha256::new());
        update(&mut one, &mut other, black_box(&bytes));
        (one.finish(), other.finish())
    });
}
