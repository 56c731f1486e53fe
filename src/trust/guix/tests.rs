//! Vectors of real signatures, and what becomes of them when a bit changes.

use data_encoding::{BASE64, HEXUPPER};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::key::Examined;
use super::signature::{ParsedSignature, parse_line};
use super::signing::SigningKey;
use super::*;
use crate::format::narinfo::NarInfo;
use crate::format::sexp::Sexp;
use crate::format::store_path::StoreDir;
use crate::trust::acl::Acl;
use crate::trust::refusal::Refusal;
use crate::trust::signer::SignatureScope;

const VECTOR_A: &str = include_str!("../../../fixtures/signatures/vector-a.narinfo");
const KEY_A: &[u8] = include_bytes!("../../../fixtures/signatures/vector-a.pub");
const VECTOR_B: &str = include_str!("../../../fixtures/signatures/vector-b.narinfo");
const KEY_B: &[u8] = include_bytes!("../../../fixtures/signatures/vector-b.pub");
const ECDSA: &[u8] = include_bytes!("../../../fixtures/signatures/ecdsa-200.txt");
const RSA: &[u8] = include_bytes!("../../../fixtures/signatures/rsa.txt");

/// Signatures for keys of small order can be made without a private key.
#[test]
fn keys_of_small_order_are_refused() {
    for point in curve25519_dalek::constants::EIGHT_TORSION {
        let q = HEXUPPER.encode(&point.compress().to_bytes());
        let key = format!("(public-key (ecc (curve Ed25519) (q #{q}#)))");
        let error = PublicKey::parse(key.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("small order"), "{error}");
        let acl = format!("(acl (entry {key} (tag (guix import))))");
        assert!(Acl::parse(acl.as_bytes()).unwrap().is_empty(), "{q}");
    }
}

/// Numbers of 255 bits are coordinates modulo p: of the 19 from p on, some are points that another
/// number stands for as well.
#[test]
fn each_point_has_a_single_notation() {
    let is_usable = |q: &str| {
        let key = format!("(public-key (ecc (curve Ed25519) (q #{q}#)))");
        PublicKey::parse(key.as_bytes())
    };
    let mut refused = 0;
    for y in 2..19_u8 {
        let usual = is_usable(&format!("{y:02X}{}", "00".repeat(31)));
        let other = is_usable(&format!("{:02X}{}7F", 0xED + y, "FF".repeat(30)));
        if usual.is_ok() {
            assert_eq!(other.unwrap_err(), KeyError::Notation, "{y}");
            refused += 1;
        }
    }
    assert!(refused > 0);
}

#[test]
fn zeros_in_front_of_rsa_numbers_make_no_other_key() {
    let modulus = "FF".repeat(256);
    let ids = [("", ""), ("00", ""), ("", "00"), ("0000", "0000")].map(|(before_n, before_e)| {
        let key = format!("(rsa (n #{before_n}{modulus}#) (e #{before_e}010001#))");
        let key = PublicKey::parse(format!("(public-key {key})").as_bytes()).unwrap();
        key.id().to_string()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");

    // libgcrypt writes one zero; the id of such a key is the hash of its s-expression.
    let usual = format!("(public-key (rsa (n #00{modulus}#) (e #010001#)))");
    let canonical = Sexp::parse(usual.as_bytes()).unwrap().to_canonical();
    let expected = HEXUPPER.encode(&Sha256::digest(canonical));
    assert_eq!(ids[0], format!("sha256:{expected}"));
}

#[test]
fn the_longest_rsa_keys_and_exponents_are_usable() {
    for (bytes, exponent) in [(256, "03"), (1024, "010001"), (1024, "01FFFFFFFF")] {
        let modulus = "FF".repeat(bytes);
        let key = format!("(public-key (rsa (n #{modulus}#) (e #{exponent}#)))");
        PublicKey::parse(key.as_bytes()).unwrap();
    }
}

/// A key of the ACL that is not used is not called an unauthorized one.
#[test]
fn a_signature_by_an_unusable_key_of_the_acl_is_refused_by_that_name() {
    let signed = &VECTOR_A[..VECTOR_A.find("Signature: ").unwrap()];
    let hash = HEXUPPER.encode(&Sha256::digest(signed));
    let identity = format!("01{}", "00".repeat(31));
    let modulus = format!("C0{}", "FF".repeat(127));
    let usable = "FF".repeat(256);
    for (key, why) in [
        (
            format!("(rsa (n #01{}#) (e #010001#))", "FF".repeat(1024)),
            "an RSA key of 8193 bits",
        ),
        (
            format!("(rsa (n #{}FE#) (e #010001#))", "FF".repeat(255)),
            "an even n",
        ),
        (format!("(rsa (n #{usable}#) (e #01#))"), "an odd number"),
        (format!("(rsa (n #{usable}#) (e #04#))"), "an odd number"),
        (
            format!("(rsa (n #{usable}#) (e #0200000001#))"),
            "an odd number",
        ),
        (
            format!("(rsa (n #{modulus}#) (e #010001#))"),
            "an RSA key of 1024 bits",
        ),
        (
            format!("(ecc (curve Ed25519) (q #{identity}#))"),
            "small order",
        ),
        (
            format!("(ecc (curve Ed25519) (q #02{}#))", "00".repeat(31)),
            "not a point",
        ),
    ] {
        let key = format!("(public-key {key})");
        let signature = format!(
            "(signature (data (flags pkcs1) (hash sha256 #{hash}#)) (sig-val (rsa (s #05#))) {key})"
        );
        let line = BASE64.encode(signature.as_bytes());
        let narinfo =
            NarInfo::parse(format!("{signed}Signature: 1;host;{line}\n"), &dir()).unwrap();

        let acl = format!("(acl (entry {key} (tag (guix import))))");
        let acl = Acl::parse(acl.as_bytes()).unwrap();
        let refusal = check_all([&narinfo].into_iter(), &acl, SignatureScope::First)[0]
            .clone()
            .unwrap_err();
        assert_eq!(refusal.reason(), "unusable-key");
        assert!(refusal.to_string().contains(why), "{refusal}");

        let refusal = check_all(
            [&narinfo].into_iter(),
            &Acl::default(),
            SignatureScope::First,
        )[0]
        .clone()
        .unwrap_err();
        assert_eq!(refusal.reason(), "unauthorized-key");
    }
}

#[test]
fn a_signature_of_absurd_length_is_corrupt() {
    let signed = &VECTOR_A[..VECTOR_A.find("Signature: ").unwrap()];
    let line = BASE64.encode("()".repeat(20_000).as_bytes());
    let text = format!("{signed}Signature: 1;host;{line}\n");
    assert_eq!(reason(&text, KEY_A), Some("corrupt-signature"));
    let why = parse_line(text.rsplit(": ").next().unwrap()).unwrap_err();
    assert_eq!(why, "it is too long");
}

fn dir() -> StoreDir {
    StoreDir::parse(StoreDir::GUIX).unwrap()
}

fn acl(key: &[u8]) -> Acl {
    let mut acl = Acl::default();
    acl.authorize(PublicKey::parse(key).unwrap());
    acl
}

/// The reason for refusing `text`, if it is a narinfo; `None` if it is authorized.
fn reason(text: &str, key: &[u8]) -> Option<&'static str> {
    let narinfo = NarInfo::parse(text, &dir()).unwrap();
    let acl = acl(key);
    check_all([&narinfo].into_iter(), &acl, SignatureScope::First)[0]
        .as_ref()
        .err()
        .map(Refusal::reason)
}

/// Whether `value`, made with `flags`, is a valid signature of `message`; `None`: it is none.
fn verify(
    key: &PublicKey,
    flags: &[u8],
    value: &Sexp,
    message: &[u8],
    hash: &[u8; 32],
) -> Option<bool> {
    Some(match key.examine(flags, value, message, hash)? {
        Examined::Decided(is_valid) => is_valid,
        Examined::Open(equation) => ecdsa::which_hold(&[equation])[0],
    })
}

#[test]
fn real_signatures_are_valid() {
    assert_eq!(reason(VECTOR_A, KEY_A), None);
    assert_eq!(reason(VECTOR_A, KEY_B), Some("unauthorized-key"));
}

#[test]
fn signatures_with_quoted_strings_are_valid() {
    for text in [
        VECTOR_B,
        include_str!("../../../fixtures/signatures/quoted-10152.narinfo"),
        include_str!("../../../fixtures/signatures/quoted-20234.narinfo"),
    ] {
        assert_eq!(reason(text, KEY_B), None);
    }
}

/// The s-expressions of a file that separates them by the record separator.
fn records(file: &[u8]) -> Vec<Sexp> {
    let texts = file
        .split(|&byte| byte == 0x1e)
        .filter(|text| !text.trim_ascii().is_empty());
    texts.map(|text| Sexp::parse(text).unwrap()).collect()
}

/// What libgcrypt has signed: `(signature DATA VALUE PUBLIC-KEY PRIVATE-KEY (msg BYTES))`.
struct Record {
    flags: Vec<u8>,
    hash: [u8; 32],
    value: Sexp,
    key: PublicKey,
    private: Sexp,
    message: Vec<u8>,
}

impl Record {
    fn of(sexp: &Sexp) -> Self {
        let parts = sexp.behind_tag("signature").unwrap();
        let [data, value, key, private, message] = parts else {
            panic!("{sexp}")
        };
        let signature = Sexp::tagged("signature", [data.clone(), value.clone(), key.clone()]);
        let claim = ParsedSignature::of(&signature).unwrap();
        Self {
            flags: claim.flags.to_owned(),
            hash: claim.hash.try_into().unwrap(),
            value: value.clone(),
            key: PublicKey::from_sexp(key.clone()).unwrap(),
            private: private.clone(),
            message: message.atom_behind_tag("msg").unwrap().to_owned(),
        }
    }

    fn verify(&self, hash: &[u8; 32], message: &[u8]) -> Option<bool> {
        verify(&self.key, &self.flags, &self.value, message, hash)
    }
}

#[test]
fn signatures_by_libgcrypt_are_valid_and_made_alike() {
    let records = records(ECDSA);
    assert_eq!(records.len(), 200);
    for record in records.iter().map(Record::of) {
        assert_eq!(record.verify(&record.hash, &record.message), Some(true));
        let [private] = record.private.exactly("private-key").unwrap();
        let [_, _, d] = private.exactly("ecc").unwrap();
        let d = d.atom_behind_tag("d").unwrap().try_into().unwrap();
        let (r, s) = SigningKey::from_bytes(d).sign(&record.hash);
        let [r, s] =
            [("r", r), ("s", s)].map(|(tag, number)| Sexp::tagged(tag, [Sexp::atom(number)]));
        let printed = record.value.to_string().replace("#00", "#");
        let made = Sexp::tagged("sig-val", [Sexp::tagged("ecdsa", [r, s])]).to_string();
        assert_eq!(made.replace("#00", "#"), printed);
    }
}

#[test]
fn a_changed_hash_or_number_signs_nothing() {
    for record in records(ECDSA).iter().map(Record::of).step_by(10) {
        for bit in 3..256 {
            let mut hash = record.hash;
            hash[31 - bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                record.verify(&hash, b""),
                Some(false),
                "bit {bit} of the hash"
            );
        }
        let [numbers] = record.value.exactly("sig-val").unwrap();
        let [r, s] = numbers.exactly("ecdsa").unwrap();
        for (changed, tag) in [(r, "r"), (s, "s")] {
            let number = changed.atom_behind_tag(tag).unwrap();
            for bit in 0..number.len() * 8 {
                let mut number = number.to_owned();
                number[bit / 8] ^= 1 << (bit % 8);
                let number = Sexp::tagged(tag, [Sexp::atom(number)]);
                let numbers = if tag == "r" {
                    [number, s.clone()]
                } else {
                    [r.clone(), number]
                };
                let value = Sexp::tagged("sig-val", [Sexp::tagged("ecdsa", numbers)]);
                let verdict = verify(&record.key, &record.flags, &value, b"", &record.hash);
                assert_eq!(verdict, Some(false), "bit {bit} of {tag}");
            }
        }
    }
}

#[test]
fn the_negated_number_signs_nothing() {
    let order = "1000000000000000000000000000000014DEF9DEA2F79CD65812631A5CF5D3ED";
    let order: [u8; 32] = HEXUPPER
        .decode(order.as_bytes())
        .unwrap()
        .try_into()
        .unwrap();
    let key = SigningKey::from_bytes([7; 32]);
    let public = PublicKey::from_sexp(key.public_key().clone()).unwrap();
    let hash = Sha256::digest(b"text").into();
    let (r, s) = key.sign(&hash);
    let verdict = |r: [u8; 32], s: [u8; 32]| {
        let [r, s] =
            [("r", r), ("s", s)].map(|(tag, number)| Sexp::tagged(tag, [Sexp::atom(number)]));
        let value = Sexp::tagged("sig-val", [Sexp::tagged("ecdsa", [r, s])]);
        verify(&public, b"rfc6979", &value, b"text", &hash)
    };
    let combine = |a: &[u8; 32], b: &[u8; 32], subtract: bool| {
        let (mut result, mut carry) = ([0; 32], i16::from(subtract));
        for at in (0..32).rev() {
            let other = if subtract { !b[at] } else { b[at] };
            let sum = i16::from(a[at]) + i16::from(other) + carry;
            result[at] = u8::try_from(sum & 0xff).unwrap();
            carry = sum >> 8;
        }
        result
    };
    assert_eq!(verdict(r, s), Some(true));
    assert_eq!(verdict(r, combine(&order, &s, true)), Some(false), "n - s");
    assert_eq!(verdict(combine(&r, &order, false), s), Some(false), "r + n");
    assert_eq!(verdict([0; 32], s), Some(false));
    assert_eq!(verdict(r, [0; 32]), Some(false));
}

#[test]
fn rsa_signatures_by_libgcrypt_are_valid() {
    let records: Vec<_> = records(RSA).iter().map(Record::of).collect();
    assert!(!records.is_empty());
    for record in &records {
        assert_eq!(record.verify(&record.hash, &record.message), Some(true));
        assert_eq!(record.verify(&record.hash, b"another text"), Some(false));
        let short = Sexp::parse(b"(sig-val (rsa (s #01#)))").unwrap();
        assert_eq!(
            verify(&record.key, b"pkcs1", &short, &record.message, &record.hash),
            Some(false)
        );
        assert_eq!(
            verify(
                &record.key,
                b"rfc6979",
                &record.value,
                &record.message,
                &record.hash
            ),
            None
        );
    }
}

#[test]
fn every_flipped_bit_is_refused_or_not_covered() {
    let signature = VECTOR_A.find("Signature:").unwrap();
    let unsigned = VECTOR_A.find("URL:").unwrap();
    let host = signature + "Signature: 1;".len()..signature + "Signature: 1;vm".len();
    let original = NarInfo::parse(VECTOR_A, &dir()).unwrap();
    let acl = acl(KEY_A);
    for bit in 0..VECTOR_A.len() * 8 {
        let mut bytes = VECTOR_A.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        let Ok(narinfo) = NarInfo::parse(text, &dir()) else {
            continue;
        };
        let is_authorized =
            check_all([&narinfo].into_iter(), &acl, SignatureScope::First)[0].is_ok();
        // In base64 the spelling of white space inside the s-expression is free.
        if is_authorized && !host.contains(&(bit / 8)) && bit / 8 < unsigned {
            let line = narinfo.guix_signature().unwrap();
            let (old, new) = (original.guix_signature().unwrap(), line);
            assert_eq!(parse_line(old), parse_line(new), "bit {bit} is covered");
        }
        assert!(
            !is_authorized || narinfo.is_equivalent(&original),
            "bit {bit}"
        );
        assert!(
            is_authorized || bit / 8 < unsigned,
            "bit {bit} is not covered"
        );
    }
}

/// A narinfo of `fields`, in this order, then its signature, then `below`.
fn signed(fields: &[&str], below: &str) -> (String, Vec<u8>) {
    let key = SigningKey::from_bytes([42; 32]);
    let text = fields.concat();
    let line = key.signature_line(&text, "test");
    (
        format!("{text}{line}{below}"),
        key.public_key().to_string().into_bytes(),
    )
}

const PATH: &str = "StorePath: /gnu/store/0f9qzp1g3jy45al4zspzqah9f8d5bisp-a\n";
const HASH: &str = "NarHash: sha256:01axkqflwrksipzgihrmiihc1xbk4bqvq4q0b3dcvf217ygqdgg8\n";
const SIZE: &str = "NarSize: 7\n";
const REFERENCES: &str = "References: \n";
const URL: &str = "URL: x\nCompression: none\n";

#[test]
fn what_must_be_signed_must_stand_above() {
    let (text, key) = signed(&[PATH, HASH, SIZE, REFERENCES], URL);
    assert_eq!(reason(&text, &key), None);
    let all = [PATH, HASH, SIZE, REFERENCES];
    for missing in all {
        let above: Vec<_> = all.into_iter().filter(|field| *field != missing).collect();
        let (text, key) = signed(&above, missing);
        assert_eq!(reason(&text, &key), Some("unsigned"), "{missing}");
    }
    let (text, key) = signed(&[PATH, HASH, SIZE], "");
    assert_eq!(
        reason(&text, &key),
        Some("unsigned"),
        "no references at all"
    );
}

#[test]
fn what_stands_below_changes_nothing() {
    let evil = "StorePath: /gnu/store/8yrx9brcs5jjh07qvgl5i9dg7kvn60m4-evil\nNarSize: 9\n";
    let (text, key) = signed(&[PATH, HASH, SIZE, REFERENCES], evil);
    assert_eq!(reason(&text, &key), None);
    let narinfo = NarInfo::parse(text, &dir()).unwrap();
    assert_eq!((narinfo.store_path().name(), narinfo.nar_size()), ("a", 7));
}

#[test]
fn a_signature_moved_elsewhere_is_for_another_text() {
    let (text, key) = signed(&[PATH, HASH, SIZE, REFERENCES], URL);
    for changed in [
        text.replace("NarSize: 7", "NarSize: 8"),
        format!("X: y\n{text}"),
        text.replace("Signature: ", "X-Signature: z\nSignature: "),
        text.replace('\n', "\r\n"),
    ] {
        assert_eq!(reason(&changed, &key), Some("signed-hash-mismatch"));
    }
    assert_eq!(
        reason(&[PATH, HASH, SIZE, REFERENCES].concat(), &key),
        Some("unsigned")
    );
}

/// A signed narinfo, its key, the value of its signature field, and the S-expression in that.
struct SignedText {
    text: String,
    key: Vec<u8>,
    original: String,
    sexp: String,
}

impl SignedText {
    fn new() -> Self {
        let (text, key) = signed(&[PATH, HASH, SIZE, REFERENCES], URL);
        let narinfo = NarInfo::parse(&*text, &dir()).unwrap();
        let original = narinfo.guix_signature().unwrap().to_owned();
        let sexp = parse_line(&original).unwrap().to_string();
        Self {
            text,
            key,
            original,
            sexp,
        }
    }

    /// Why the narinfo is refused with `changed` in place of its signature.
    fn reason(&self, changed: &str) -> Option<&'static str> {
        assert_ne!(changed, self.original, "nothing was changed");
        reason(&self.text.replace(&self.original, changed), &self.key)
    }
}

/// The value of a signature field that holds `sexp`.
fn spelled(sexp: &str) -> String {
    format!("1;test;{}", BASE64.encode(sexp.as_bytes()))
}

#[test]
fn what_is_no_signature_is_corrupt() {
    let signed = SignedText::new();
    let (original, sexp) = (&signed.original, &signed.sexp);
    for changed in [
        String::new(),
        "1;test".into(),
        original.replace("1;", "2;"),
        format!("{original};"),
        "1;test;!".into(),
        format!("1;test;{}", BASE64.encode(b"\xff")),
        format!("1;test;{}", BASE64.encode("(\u{100})".as_bytes())),
        spelled(&format!("{sexp})")),
        spelled(&format!("{sexp} x")),
        spelled("(signature)"),
        spelled(&sexp.replace("sha256", "sha512")),
        spelled(&sexp.replace("(flags rfc6979)", "(flags raw)")),
        spelled(&sexp.replace("(flags rfc6979)", "(flags eddsa)")),
        spelled(&sexp.replace("(flags rfc6979)", "(flags pkcs1)")),
        spelled(&sexp.replace("(ecdsa", "(eddsa")),
        spelled(&sexp.replace("public-key", "private-key")),
        spelled(&sexp.replace("(r #", "(x #")),
    ] {
        assert_eq!(
            signed.reason(&changed),
            Some("corrupt-signature"),
            "{changed}"
        );
    }
}

#[test]
fn a_changed_signature_is_refused_for_what_was_changed() {
    let signed = SignedText::new();
    let sexp = &signed.sexp;
    for (changed, reason_given) in [
        (
            spelled(&sexp.replace("Ed25519", "ed25519")),
            "unauthorized-key",
        ),
        (spelled(&sexp.replace("(q #", "(q #40")), "unauthorized-key"),
        (
            spelled(&sexp.replace("(hash sha256 #", "(hash sha256 #00")),
            "signed-hash-mismatch",
        ),
        (
            spelled(&sexp.replace("(r #", "(r #01")),
            "invalid-signature",
        ),
    ] {
        assert_eq!(signed.reason(&changed), Some(reason_given), "{changed}");
    }

    let zeros = spelled(&sexp.replace("(r #", "(r #0000"));
    assert_eq!(signed.reason(&zeros), None, "leading zeros have no meaning");
}

proptest! {
    #[test]
    fn verify_inverts_sign(private: [u8; 32], message: Vec<u8>) {
        let key = SigningKey::from_bytes(private);
        let public = PublicKey::from_sexp(key.public_key().clone()).unwrap();
        let hash = Sha256::digest(&message).into();
        let (r, s) = key.sign(&hash);
        let [r, s] = [("r", r), ("s", s)].map(|(tag, number)| Sexp::tagged(tag, [Sexp::atom(number)]));
        let value = Sexp::tagged("sig-val", [Sexp::tagged("ecdsa", [r, s])]);
        prop_assert_eq!(verify(&public, b"rfc6979", &value, &message, &hash), Some(true));
    }
}

#[test]
fn together_each_gets_the_verdict_that_it_gets_alone() {
    // An authorized key has signed some; the others are damaged in different ways.
    let signature_at = VECTOR_A.find("Signature: ").unwrap();
    let line = |flags: &str, numbers: &str| {
        let (data, rest) = (format!("(flags {flags})"), numbers);
        let hash = HEXUPPER.encode(&Sha256::digest(&VECTOR_A[..signature_at]));
        let key = PublicKey::parse(KEY_A).unwrap().as_sexp().to_string();
        let text =
            format!("(signature (data {data} (hash sha256 #{hash}#)) (sig-val {rest}) {key})");
        let base64 = BASE64.encode(text.as_bytes());
        format!("{}Signature: 1;host;{base64}\n", &VECTOR_A[..signature_at])
    };
    let texts = [
        VECTOR_A.to_owned(),
        VECTOR_A.to_owned(),
        line("rfc6979", "(ecdsa (r #05#) (s #07#))"),
        line("rfc6979", "(ecdsa (r #05#) (s #00#))"),
        VECTOR_A[..signature_at].to_owned(),
        VECTOR_A.replace("NarSize: ", "NarSize: 1"),
        line("pkcs1", "(rsa (s #05#))"),
        VECTOR_B.to_owned(),
        VECTOR_A.to_owned(),
    ];
    let narinfos: Vec<_> = texts
        .iter()
        .map(|text| NarInfo::parse(&**text, &dir()).unwrap())
        .collect();
    let acl = acl(KEY_A);
    let together: Vec<_> = check_all(narinfos.iter(), &acl, SignatureScope::First)
        .into_iter()
        .map(|verdict| verdict.err().map(|refusal| refusal.reason()))
        .collect();
    let alone: Vec<_> = texts.iter().map(|text| reason(text, KEY_A)).collect();
    assert_eq!(together, alone);
    let expected = [
        None,
        None,
        Some("invalid-signature"),
        Some("invalid-signature"),
        Some("unsigned"),
        Some("signed-hash-mismatch"),
        Some("corrupt-signature"),
        Some("unauthorized-key"),
        None,
    ];
    assert_eq!(together, expected);
}

/// Whoever signs what another has signed adds a line; stock Guix uses the first one.
#[test]
fn every_signature_line_counts_where_all_are_examined() {
    let signed = &VECTOR_A[..VECTOR_A.find("Signature: ").unwrap()];
    let keys = [1, 2, 3, 4].map(|byte| SigningKey::from_bytes([byte; 32]));
    let lines = [0, 1, 2, 1].map(|key: usize| keys[key].signature_line(signed, "host"));
    let forged = keys[3].signature_line(&format!("{signed}x"), "host");
    let text = format!("{signed}{}URL: x\n{forged}", lines.concat());
    let narinfo = NarInfo::parse(text, &dir()).unwrap();

    let mut acl = Acl::default();
    for key in &keys[1..] {
        acl.authorize(PublicKey::from_sexp(key.public_key().clone()).unwrap());
    }
    let [first] = &check_all([&narinfo].into_iter(), &acl, SignatureScope::First)[..] else {
        panic!("one narinfo has one verdict");
    };
    assert_eq!(first.as_ref().unwrap_err().reason(), "unauthorized-key");

    let all = check_all([&narinfo, &narinfo].into_iter(), &acl, SignatureScope::All);
    assert_eq!(all.len(), 2);
    for signers in all {
        let signers = signers.unwrap();
        let ids: Vec<&str> = signers.iter().map(|signer| signer.key_id()).collect();
        let expected = [&keys[1], &keys[2]].map(|key| key_id(key.public_key()));
        assert_eq!(ids, expected);
    }
}
