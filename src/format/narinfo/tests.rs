//! Parsing and printing: samples of both dialects, hostile ones, and the laws between the two.

use proptest::prelude::*;

use super::limits::{
    DOWNLOADS_MAX, METHOD_BYTES_MAX, SIGNATURES_KEPT_MAX, SIGNATURES_MAX, URLS_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use super::*;
use crate::format::compression::{Compression, UnknownCompression};
use crate::format::hash::{HashForm, NarHash};
use crate::format::store_path::{StoreDir, StorePathRef};

const HASH: &str = "sha256:01axkqflwrksipzgihrmiihc1xbk4bqvq4q0b3dcvf217ygqdgg8";
const ITEM: &str = "0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0";
const OTHER: &str = "8yrx9brcs5jjh07qvgl5i9dg7kvn60m4-perl-5.36";

fn guix() -> StoreDir {
    StoreDir::parse(StoreDir::GUIX).unwrap()
}

fn nix() -> StoreDir {
    StoreDir::parse(StoreDir::NIX).unwrap()
}

/// A narinfo of the four described fields and `rest`.
fn text(store_dir: &StoreDir, rest: &str) -> String {
    let dir = store_dir.as_str();
    format!(
        "StorePath: {dir}/{ITEM}\nNarHash: {HASH}\nNarSize: 7\nReferences: {ITEM} {OTHER}\n{rest}"
    )
}

fn parse(text: &str) -> Result<NarInfo, NarInfoError> {
    let dir = if text.contains(StoreDir::NIX) {
        nix()
    } else {
        guix()
    };
    NarInfo::parse(text, &dir)
}

fn quirks(text: &str) -> Quirks {
    parse(text).unwrap().quirks()
}

#[test]
fn reads_a_guix_narinfo() {
    let sample = include_str!("../../../fixtures/signatures/vector-a.narinfo");
    let narinfo = parse(sample).unwrap();
    assert_eq!(narinfo.store_path().base(), ITEM);
    assert_eq!(narinfo.nar_hash().to_string(), HASH);
    assert_eq!(narinfo.nar_size(), 288_640);
    assert_eq!(
        (narinfo.references().count(), narinfo.references_len()),
        (0, 0)
    );
    assert_eq!(narinfo.deriver().unwrap().name(), "debconf-1.0.drv");
    assert!(narinfo.guix_signature().unwrap().starts_with("1;vm;KHNp"));
    assert_eq!(narinfo.signed_text().unwrap().len(), 223);
    assert!(narinfo.describes_item_within(223));
    assert!(!narinfo.describes_item_within(100));
    let [zstd, lzip] = narinfo.downloads() else {
        panic!("two downloads")
    };
    assert_eq!(
        (zstd.compression.clone(), zstd.file_size),
        (Ok(Compression::Zstd), Some(76_987))
    );
    assert_eq!(
        (lzip.compression.clone(), lzip.file_size),
        (Ok(Compression::Lzip), Some(72_993))
    );
    assert_eq!(narinfo.download_url(lzip), format!("nar/lzip/{ITEM}"));
    assert!(narinfo.quirks().is_empty(), "{:?}", narinfo.quirks());
    assert_eq!(narinfo.to_string(), sample);
}

#[test]
fn reads_a_nix_narinfo() {
    let sample = format!(
        "StorePath: /nix/store/{ITEM}\nURL: nar/x.nar.xz\nCompression: xz\nFileHash: {HASH}\n\
         FileSize: 3020\nNarHash: {HASH}\nNarSize: 11408\nReferences: {ITEM} {OTHER}\n\
         Deriver: {OTHER}.drv\nSystem: x86_64-linux\nSig: a-1:AAAA\nSig: b-1:BBBB\nCA: fixed:x\n"
    );
    let narinfo = parse(&sample).unwrap();
    let references: Vec<_> = narinfo.references().map(StorePathRef::base).collect();
    assert_eq!(references, [ITEM, OTHER]);
    assert_eq!(
        narinfo.nix_signatures().collect::<Vec<_>>(),
        ["a-1:AAAA", "b-1:BBBB"]
    );
    assert_eq!(
        (narinfo.system(), narinfo.ca()),
        (Some("x86_64-linux"), Some("fixed:x"))
    );
    assert_eq!(narinfo.downloads()[0].file_hash.unwrap().to_string(), HASH);
    assert_eq!(narinfo.guix_signature(), None);
    assert_eq!(narinfo.signed_text(), None);
    assert!(narinfo.quirks().is_empty(), "{:?}", narinfo.quirks());
    assert_eq!(narinfo.to_string(), sample);
}

#[test]
fn oddities_are_tolerated_and_reported() {
    for dir in [guix(), nix()] {
        assert_eq!(
            quirks(&text(&dir, "URL: x\nCompression: none\n")),
            Quirks::default()
        );
        for (rest, expected) in [
            ("X-Proxy: hit\n", Quirks::UNKNOWN_FIELD),
            ("Deriver: unknown-deriver\n", Quirks::UNKNOWN_DERIVER),
            ("Deriver:\nSystem:", Quirks::NO_FINAL_NEWLINE),
            ("\n\n", Quirks::EMPTY_LINE),
            ("System: a\nSystem: b\n", Quirks::DUPLICATE_FIELD),
            (
                "URL: x\nCompression: xz\nFileSize: -1\n",
                Quirks::UNREADABLE_FILE_FIELD,
            ),
            (
                "URL: x\nCompression: xz\nFileHash: md5:0\n",
                Quirks::UNREADABLE_FILE_FIELD,
            ),
        ] {
            assert_eq!(quirks(&text(&dir, rest)), expected, "{rest}");
        }
    }
    let crlf = text(&nix(), "").replace('\n', "\r\r\n");
    assert_eq!(quirks(&crlf), Quirks::CRLF);
    assert_eq!(parse(&crlf).unwrap().references_len(), 2);
    let unsorted = text(&nix(), "").replace(&format!("{ITEM} {OTHER}"), &format!("{OTHER} {ITEM}"));
    assert_eq!(quirks(&unsorted), Quirks::UNSORTED_REFERENCES);
    let no_references = text(&nix(), "").replace("References", "Unreferences");
    assert!(quirks(&no_references).contains(Quirks::NO_REFERENCES_LINE));
    assert_eq!(parse(&no_references).unwrap().references().count(), 0);
    let (hash, _) = NarHash::parse(HASH).unwrap();
    for form in [HashForm::Base16, HashForm::Base64, HashForm::Sri] {
        let text = text(&nix(), "").replace(HASH, &hash.in_form(form));
        assert_eq!(quirks(&text), Quirks::HASH_FORM);
        assert_eq!(parse(&text).unwrap().nar_hash(), hash);
        assert_eq!(parse(&text).unwrap().to_string(), text);
    }
}

/// Nothing depends on the deriver, so an unreadable one does not make the narinfo invalid.
#[test]
fn an_unreadable_deriver_counts_as_absent() {
    let long = format!("{OTHER}{}", "x".repeat(300));
    for dir in [guix(), nix()] {
        for deriver in ["x.drv", "/gnu/store/x", "\u{fffd}", &long] {
            let text = text(&dir, &format!("Deriver: {deriver}\n"));
            let narinfo = parse(&text).unwrap();
            assert_eq!(narinfo.deriver(), None, "{deriver}");
            assert_eq!(narinfo.abridged().deriver(), None, "{deriver}");
        }
        let narinfo = parse(&text(&dir, &format!("Deriver: {OTHER}\n"))).unwrap();
        assert_eq!(narinfo.deriver().map(StorePathRef::base), Some(OTHER));
    }
}

/// Nix allows names that begin with a dot, but not with `.` or `..` as the part before a dash.
#[test]
fn leading_dots_are_for_nix_to_allow() {
    let hash = &ITEM[..32];
    for (name, is_allowed) in [
        (".profile", true),
        ("...", true),
        ("..a", true),
        (".a-", true),
        ("...-a", true),
        (".", false),
        ("..", false),
        (".-", false),
        (".-a", false),
        ("..-a", false),
    ] {
        let item = format!("{hash}-{name}");
        for field in ["StorePath", "References"] {
            let dotted = |dir: &StoreDir| match field {
                "StorePath" => text(dir, "").replacen(ITEM, &item, 1),
                _ => text(dir, "").replacen(OTHER, &item, 1),
            };
            assert_eq!(parse(&dotted(&nix())).is_ok(), is_allowed, "{field} {name}");
            assert!(parse(&dotted(&guix())).is_err(), "{field} {name}");
        }
        let deriver = parse(&text(&nix(), &format!("Deriver: {item}\n"))).unwrap();
        assert_eq!(deriver.deriver().is_some(), is_allowed, "{name}");
        let deriver = parse(&text(&guix(), &format!("Deriver: {item}\n"))).unwrap();
        assert_eq!(deriver.deriver(), None, "{name}");
    }
}

/// Ten times as much as is read and kept of each field.
#[test]
fn what_is_read_and_kept_of_a_narinfo_is_limited() {
    let long = |name: &str, length: usize| format!("{name}: {}\n", "x".repeat(length));
    for field in ["StorePath", "NarHash", "NarSize", "References", "?"] {
        let text = text(&nix(), &long(field, 10 * MAX_BYTES));
        let error = NarInfo::parse(text.as_str(), &nix()).unwrap_err();
        assert_eq!(error, NarInfoError::TooLong(text.len()));
    }
    for field in ["StorePath", "NarHash", "NarSize", "References"] {
        let from = text(&guix(), "");
        let line = from.lines().find(|line| line.starts_with(field)).unwrap();
        let text = from.replace(&format!("{line}\n"), &long(field, MAX_BYTES / 2));
        let error = NarInfo::parse(text, &guix()).unwrap_err();
        let shown = format!("{error}: {:?}", std::error::Error::source(&error));
        assert!(shown.len() < 1000, "{field}: {} bytes", shown.len());
    }

    let signatures = "Sig: a:b\n".repeat(10 * SIGNATURES_MAX);
    let others: String = ["System", "CA", "Sig", "Deriver"]
        .iter()
        .map(|field| long(field, 10 * VALUE_BYTES_MAX))
        .collect();
    let downloads = long("URL", 10 * URLS_BYTES_MAX).repeat(3)
        + &"URL: x\nCompression: zstd\n".repeat(10 * DOWNLOADS_MAX);
    let method = format!("URL: y\n{}", long("Compression", 10 * METHOD_BYTES_MAX));
    let narinfo = parse(&text(
        &nix(),
        &(method + &signatures + &others + &downloads),
    ))
    .unwrap();
    assert_eq!(narinfo.nix_signatures().count(), SIGNATURES_MAX);
    assert_eq!(narinfo.downloads().len(), DOWNLOADS_MAX);
    let method = narinfo.downloads()[0].compression.clone().unwrap_err();
    assert_eq!(method.0.len(), METHOD_BYTES_MAX);

    let kept = narinfo.abridged();
    assert_eq!(kept.nix_signatures().count(), SIGNATURES_KEPT_MAX);
    assert!(kept.text().len() < 1000, "{}", kept.text().len());
    assert!(NarOffer::of(&narinfo).to_text().len() < 2 * URLS_BYTES_MAX);
}

#[test]
fn blanks_around_values_do_not_matter() {
    for line in ["References:", "References: ", "References:\t \t"] {
        let text = format!("StorePath:  /gnu/store/{ITEM}\nNarHash:{HASH}\nNarSize:\t7\n{line}\n");
        let narinfo = parse(&text).unwrap();
        assert_eq!((narinfo.nar_size(), narinfo.references().count()), (7, 0));
        assert!(narinfo.quirks().is_empty());
    }
}

#[test]
fn a_missing_method_is_bzip2_to_nix_and_none_to_guix() {
    for rest in ["URL: x\n", "URL: x\nCompression: \n"] {
        let narinfo = parse(&text(&nix(), rest)).unwrap();
        assert_eq!(narinfo.downloads()[0].compression, Ok(Compression::Bzip2));
        assert_eq!(narinfo.quirks(), Quirks::DEFAULTED_COMPRESSION);
        let narinfo = parse(&text(&guix(), rest)).unwrap();
        assert_eq!(
            narinfo.downloads()[0].compression,
            Err(UnknownCompression(String::new()))
        );
    }
    let narinfo = parse(&text(&nix(), "URL: x\nCompression: lrzip\n")).unwrap();
    assert_eq!(
        narinfo.downloads()[0].compression,
        Err(UnknownCompression("lrzip".into()))
    );
}

#[test]
fn each_url_opens_a_download() {
    let rest = "FileSize: 1\nURL: a\nCompression: gzip\nURL: b\nURL: c\nFileSize: 3\nFileSize: 4\n\
                Compression: lzip\n";
    let narinfo = parse(&text(&guix(), rest)).unwrap();
    let found: Vec<_> = narinfo
        .downloads()
        .iter()
        .map(|download| (narinfo.download_url(download), download.file_size))
        .collect();
    assert_eq!(found, [("a", Some(1)), ("b", None), ("c", Some(3))]);
    assert!(
        parse(&text(&guix(), "Compression: gzip\n"))
            .unwrap()
            .downloads()
            .is_empty()
    );
}

#[test]
fn what_stands_below_never_replaces_what_stands_above() {
    let evil = "9".repeat(32) + "-evil";
    let rest = format!(
        "Signature: 1;h;AAAA\nStorePath: /gnu/store/{evil}\nNarHash: sha256:{}\nNarSize: 9\n\
         References: {evil}\nSignature: 1;h;BBBB\n",
        "1".repeat(52)
    );
    let narinfo = parse(&text(&guix(), &rest)).unwrap();
    assert!(narinfo.is_equivalent(&parse(&text(&guix(), "")).unwrap()));
    assert_eq!(narinfo.guix_signature(), Some("1;h;AAAA"));
    assert_eq!(narinfo.quirks(), Quirks::DUPLICATE_FIELD);
    for field in [
        "StorePath: /nix/store/x",
        "NarHash: x",
        "NarSize: 7",
        "References:",
    ] {
        let name = field.split(':').next().unwrap();
        let refused = parse(&text(&nix(), &format!("{field}\n"))).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("there is more than one {name} field")
        );
    }
}

#[test]
fn the_signed_text_ends_at_the_first_mark_anywhere() {
    let narinfo = parse(&text(&guix(), "X-Signature: a\nSignature: 1;h;AAAA\n")).unwrap();
    assert!(narinfo.signed_text().unwrap().ends_with("\nX-"));
    assert_eq!(narinfo.guix_signature(), Some("1;h;AAAA"));
}

/// A text in which the first `from` is replaced by `to`.
fn text_with(from: &str, to: &str) -> String {
    text(&nix(), "").replacen(from, to, 1)
}

/// Every text is refused with an error that begins as given.
fn assert_refused<const N: usize>(cases: [(String, &str); N]) {
    for (text, words) in cases {
        let error = NarInfo::parse(&*text, &nix()).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
        assert!(error.len() < 300, "{error}");
    }
}

#[test]
fn sizes_that_are_no_numbers_are_refused() {
    assert_refused([
        (
            text_with("NarSize: 7", "NarSize: +7"),
            "NarSize is not a number of bytes: `+7`",
        ),
        (
            text_with("NarSize: 7", "NarSize: 7 "),
            "NarSize is not a number of bytes: `7 `",
        ),
        (
            text_with("NarSize: 7", "NarSize:"),
            "NarSize is not a number of bytes: ``",
        ),
        (
            text_with("NarSize: 7", "NarSize: 18446744073709551616"),
            "NarSize is not a number",
        ),
    ]);
}

#[test]
fn texts_that_are_no_narinfo_are_refused() {
    let long = text_with("NarSize", &format!("X: {}\nNarSize", "x".repeat(MAX_BYTES)));
    assert_refused([
        (String::new(), "there is no StorePath field"),
        ("<html>\n<body>".into(), "line 1 is not a field: `<html>`"),
        ("no colon".into(), "line 1 is not a field"),
        (
            text_with("\nNarHash", "\n NarHash"),
            "line 2 is not a field",
        ),
        (
            text_with("\nNarHash", "\n# a: b\nNarHash"),
            "line 2 is not a field",
        ),
        (
            text_with("\nNarHash", "\n+ a: b\nNarHash"),
            "line 2 is not a field",
        ),
        (
            text_with("\nNarHash", "\nNar\x1b[2JHash"),
            r"line 2 is not a field: `Nar\u{1b}[2JHash:",
        ),
        (text_with("NarHash", "NarHush"), "there is no NarHash field"),
        (text_with("NarSize", "Size"), "there is no NarSize field"),
        (
            text_with("StorePath", "Path"),
            "there is no StorePath field",
        ),
        (
            text_with("sha256:", "sha512:"),
            "the NarHash field is invalid",
        ),
        (
            text_with("sha256:0", "sha256:"),
            "the NarHash field is invalid",
        ),
        (
            text_with("/nix/store/0", "/nix/store/x/0"),
            "the StorePath field is invalid",
        ),
        (
            text_with("/nix/store/", ""),
            "the StorePath field is invalid",
        ),
        (
            text_with(OTHER, "../../etc/passwd"),
            "the References field is invalid",
        ),
        (
            text_with(OTHER, "/nix/store/x"),
            "the References field is invalid",
        ),
        (long, "a narinfo of 1048"),
    ]);

    assert!(
        NarInfo::parse(text(&nix(), ""), &guix()).is_err(),
        "another store directory"
    );
}

#[test]
fn equivalence_is_about_the_described_content() {
    let plain = parse(&text(&guix(), "")).unwrap();
    let elsewhere = parse(&text(&guix(), "URL: x\nDeriver: \nSystem: y\n")).unwrap();
    assert!(plain.is_equivalent(&elsewhere));
    let (references, reversed) = (format!("{ITEM} {OTHER}"), format!("{OTHER} {ITEM}"));
    let reversed = text(&guix(), "").replacen(&references, &reversed, 1);
    assert_ne!(reversed, plain.text());
    assert!(plain.is_equivalent(&parse(&reversed).unwrap()));
    for (from, to) in [
        ("NarSize: 7", "NarSize: 8"),
        ("debconf-1.0\nNarHash", "debconf-1.1\nNarHash"),
        ("sha256:01", "sha256:00"),
        (OTHER, ""),
    ] {
        let other = parse(&text(&guix(), "").replacen(from, to, 1)).unwrap();
        assert!(!plain.is_equivalent(&other), "{to}");
    }
}

#[test]
fn the_names_of_quirks_match_their_flags() {
    let all = Quirks::CRLF | Quirks::EMPTY_LINE | Quirks::UNREADABLE_FILE_FIELD;
    assert_eq!(
        format!("{all:?}"),
        "Quirks(CRLF | UNREADABLE_FILE_FIELD | EMPTY_LINE)"
    );
}

fn names() -> impl Strategy<Value = String> {
    "[0-9a-df-np-sv-z]{32}-[a-zA-Z0-9+_?=-][a-zA-Z0-9+._?=-]{0,20}"
}

/// Names that are wrong by little, or by length.
fn odd_names() -> impl Strategy<Value = String> {
    let hash_part = &ITEM[..32];
    prop_oneof![
        (names(), "[!-~é]").prop_map(|(name, foreign)| name + &foreign),
        (0..300usize).prop_map(move |length| format!("{hash_part}-{}", "n".repeat(length))),
        names().prop_map(|name| name.replacen('-', "-.", 1)),
        names().prop_map(|name| name.replacen('-', "_", 1)),
        names().prop_map(|name| name[1..].to_owned()),
        "[!-~]{1,40}",
    ]
}

/// Lines as a server may send them: plausible ones, in any order, some of them wrong.
fn lines() -> impl Strategy<Value = String> {
    let hash = "sha256:[01][0-9a-df-np-sv-z]{51}";
    let line = prop_oneof![
        names().prop_map(|name| format!("StorePath: /nix/store/{name}")),
        hash.prop_map(|hash| format!("NarHash: {hash}")),
        any::<u64>().prop_map(|size| format!("NarSize: {size}")),
        prop::collection::vec(names(), 0..4)
            .prop_map(|names| format!("References: {}", names.join(" "))),
        names().prop_map(|name| format!("Deriver: {name}")),
        "(URL|Compression|FileSize|System|CA|Sig|Signature|X): [a-z0-9:;.]{0,8}",
        "Compression: (none|xz|bzip2|zstd)",
        hash.prop_map(|hash| format!("FileHash: {hash}")),
        "[ -~]{0,10}",
    ];
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn print_is_a_normal_form(
        above in lines(), below in lines(), path in names(), references in prop::collection::vec(names(), 0..3)
    ) {
        for dir in [guix(), nix()] {
            let text = format!(
                "{above}\nStorePath: {}/{path}\nNarHash: {HASH}\nNarSize: 5\nReferences: {}\n{below}",
                dir.as_str(), references.join(" ")
            );
            let Ok(narinfo) = NarInfo::parse(text, &dir) else { continue };
            let printed = narinfo.to_string();
            let again = NarInfo::parse(&*printed, &dir).unwrap();
            prop_assert!(again.is_equivalent(&narinfo));
            prop_assert_eq!(again.deriver(), narinfo.deriver());
            prop_assert!(again.nix_signatures().eq(narinfo.nix_signatures()));
            prop_assert_eq!(again.downloads().len(), narinfo.downloads().len());
            for (new, old) in again.downloads().iter().zip(narinfo.downloads()) {
                prop_assert_eq!(again.download_url(new), narinfo.download_url(old));
                prop_assert_eq!(&new.compression, &old.compression);
                prop_assert_eq!((new.file_size, new.file_hash), (old.file_size, old.file_hash));
            }
            prop_assert_eq!(again.to_string(), printed);
        }
    }

    #[test]
    fn references_are_good_when_each_of_them_is(
        words in proptest::collection::vec(prop_oneof![8 => names(), 1 => odd_names()], 0..5),
        blanks in "[ \t]{1,3}",
    ) {
        let all_good = words.iter().all(|word| guix().parse_path(&format!("/gnu/store/{word}")).is_ok());
        let line = words.join(&blanks);
        let text = format!("StorePath: /gnu/store/{ITEM}\nNarHash: {HASH}\nNarSize: 7\nReferences: {line}\n");
        match parse(&text) {
            Ok(narinfo) => {
                prop_assert!(all_good);
                let bases: Vec<_> = narinfo.references().map(StorePathRef::base).collect();
                prop_assert_eq!(bases, words);
            }
            Err(error) => {
                prop_assert!(matches!(error, NarInfoError::Reference(_)), "{error:?}");
                prop_assert!(!all_good);
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}", lines in lines()) {
        for text in [text, lines] {
            for dir in [guix(), nix()] {
                let _ = NarInfo::parse(&*text, &dir);
            }
        }
    }
}
