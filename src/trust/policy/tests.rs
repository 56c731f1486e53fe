//! The policy against a model of it, which counts in another way, for random votes.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::format::narinfo::NarInfo;
use crate::format::store_path::StoreDir;
use crate::trust::acl::Acl;
use crate::trust::guix::PublicKey;
use crate::trust::guix::signing::SigningKey;
use crate::trust::nix::TrustedKeys;
use crate::trust::signed::SignedNarInfo;
use crate::trust::signer::Signers;
use crate::trust::verdict::{Authorization, Refusal, judge};

const NOW: u64 = 1_000_000;
/// Six keys are authorized; the seventh is not.
const KEYS: usize = 7;

/// Numbers that follow from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }
}

/// What all cases have in common.
struct World {
    keys: AuthorizedKeys,
    ids: Vec<Arc<str>>,
    /// Narinfos of one item, and the fact that each one states.
    narinfos: Vec<(Arc<NarInfo>, usize)>,
}

fn world() -> World {
    let mut acl = Acl::default();
    let keys = (1..).take(KEYS).map(|byte| {
        let key = SigningKey::from_bytes([byte; 32]);
        PublicKey::from_sexp(key.public_key().clone()).unwrap()
    });
    let keys: Vec<PublicKey> = keys.collect();
    let ids = keys.iter().map(|key| Arc::clone(key.id())).collect();
    for key in keys.into_iter().take(KEYS - 1) {
        acl.authorize(key);
    }

    let [one, other] = ["1", "2"].map(|digit| format!("{}-y", digit.repeat(32)));
    let texts = [
        ("0", 7, format!("{one} {other}")),
        ("0", 7, format!("{other} {one}")),
        ("1", 7, format!("{one} {other}")),
        ("0", 8, format!("{one} {other}")),
        ("0", 7, one),
    ];
    // The first two differ in the order of the references only.
    let facts = [0, 0, 1, 2, 3];
    let dir = StoreDir::parse(StoreDir::GUIX).unwrap();
    let narinfos = texts
        .iter()
        .zip(facts)
        .map(|((digit, size, references), fact)| {
            let (item, hash) = ("0".repeat(32), digit.repeat(52));
            let text = format!(
                "StorePath: /gnu/store/{item}-x\nURL: x\nNarHash: sha256:{hash}\nNarSize: {size}\n\
             References: {references}\n"
            );
            (Arc::new(NarInfo::parse(text, &dir).unwrap()), fact)
        });

    World {
        keys: AuthorizedKeys::Guix(acl),
        ids,
        narinfos: narinfos.collect(),
    }
}

fn objection(chance: &mut Chance) -> Objection {
    [Objection::Refuse, Objection::Warn][chance.index(2)]
}

fn terms(chance: &mut Chance, world: &World) -> PolicyTerms {
    let principals = (0..chance.below(5)).map(|number| {
        let keys = (0..=chance.below(2)).map(|_| {
            let id = &world.ids[chance.index(KEYS)];
            KeyName::Guix(guix_digits(id)[..16].to_owned())
        });
        Principal {
            name: format!("p{number}"),
            keys: keys.collect(),
            expires: match chance.below(6) {
                0 => Some((NOW - chance.below(2), String::new())),
                1 => Some((NOW + 1, String::new())),
                _ => None,
            },
        }
    });
    let principals = principals.collect();

    let rules = (0..chance.below(3)).map(|_| NeedRule {
        names: NamePattern::new(["x", "y*", "*-x", "?"][chance.index(4)]),
        need: chance.index(3) + 1,
    });
    PolicyTerms {
        rules: rules.collect(),
        need: chance.index(4) + 1,
        on_too_few: objection(chance),
        on_dissent: match chance.below(3) {
            0 => None,
            _ => Some(objection(chance)),
        },
        principals,
    }
}

/// What servers have: narinfos, each with the numbers of the keys that have signed it.
fn answers(chance: &mut Chance, world: &World) -> Vec<(usize, Vec<usize>)> {
    let servers = (0..chance.below(6)).map(|_| {
        let narinfo = match chance.below(3) {
            0 => chance.index(world.narinfos.len()),
            _ => chance.index(2),
        };
        let signers = (0..=chance.below(2)).map(|_| chance.index(KEYS - 1));
        (narinfo, signers.collect())
    });
    servers.collect()
}

/// What is to follow.
#[derive(Debug, PartialEq)]
enum Expected {
    Any,
    Fact {
        fact: usize,
        objection: Option<&'static str>,
    },
    Refused(&'static str),
}

/// The policy, as the documentation describes it.
fn expected(terms: &PolicyTerms, world: &World, answers: &[(usize, Vec<usize>)]) -> Expected {
    let matching = |rule: &&NeedRule| {
        ["x", "*-x", "?"]
            .map(NamePattern::new)
            .contains(&rule.names)
    };
    let need = terms
        .rules
        .iter()
        .find(matching)
        .map_or(terms.need, |rule| rule.need);
    let refuses_dissent = terms.on_dissent != Some(Objection::Warn);
    if need == 1 && terms.principals.is_empty() && terms.on_dissent != Some(Objection::Refuse) {
        return Expected::Any;
    }

    let voter = |key: usize| -> Option<String> {
        if terms.principals.is_empty() {
            return Some(key.to_string());
        }
        let named = KeyName::Guix(guix_digits(&world.ids[key])[..16].to_owned());
        let mut owners = terms
            .principals
            .iter()
            .filter(|it| it.keys.contains(&named));
        let owner = owners.next()?;
        let is_expired = owner.expires.as_ref().is_some_and(|(end, _)| *end <= NOW);
        (owners.next().is_none() && !is_expired).then(|| owner.name.clone())
    };
    let mut votes: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let mut order = Vec::new();
    for (narinfo, signers) in answers {
        let fact = world.narinfos[*narinfo].1;
        let voters: Vec<String> = signers.iter().filter_map(|key| voter(*key)).collect();
        if !voters.is_empty() {
            votes.entry(fact).or_default().extend(voters);
            order.push(fact);
        }
    }

    let Some(most) = votes.values().map(BTreeSet::len).max() else {
        return Expected::Refused("too-few-votes");
    };
    let winners = votes.values().filter(|voters| voters.len() >= need).count();
    if winners >= 2 || (votes.len() > 1 && refuses_dissent) {
        return Expected::Refused("dissent");
    }
    let fact = order
        .into_iter()
        .find(|fact| votes[fact].len() == most)
        .unwrap();
    match (winners, terms.on_too_few) {
        (0, Objection::Refuse) => Expected::Refused("too-few-votes"),
        (0, Objection::Warn) if votes.len() == 1 => Expected::Fact {
            fact,
            objection: Some("too-few-votes"),
        },
        _ => Expected::Fact {
            fact,
            objection: (votes.len() > 1).then_some("dissent"),
        },
    }
}

fn check(seed: u64, world: &World) -> Expected {
    let mut chance = Chance(seed);
    let terms = terms(&mut chance, world);
    let answers = answers(&mut chance, world);
    let recorded: Vec<bool> = answers.iter().map(|_| chance.below(8) == 0).collect();
    let expected = expected(&terms, world, &answers);

    let (policy, _) = TrustPolicy::new(terms, &world.keys, NOW);
    let signed = signed(world, &answers, &recorded);
    let all: Vec<&SignedNarInfo> = signed.iter().collect();
    let item = world.narinfos[0].0.store_path();
    let judgment = judge(&policy, policy.quorum(item), &all);
    assert!(policy.quorum(item).is_none() || policy.signature_scope() == SignatureScope::All);

    let (refusal, objection) = match &expected {
        Expected::Any => (None, None),
        Expected::Fact { objection, .. } => (None, *objection),
        Expected::Refused(reason) => (Some(*reason), None),
    };
    let judged = judgment.objection().map(Refusal::reason);
    assert_eq!(judged, objection, "seed {seed}");
    let judged = judgment.refusal().map(Refusal::reason);
    assert_eq!(judged, refusal, "seed {seed}");

    let facts = answers
        .iter()
        .map(|(narinfo, _)| world.narinfos[*narinfo].1);
    let facts: Vec<usize> = facts.collect();
    let is_fact_recorded = |fact| (0..facts.len()).any(|it| facts[it] == fact && recorded[it]);
    for (number, one) in signed.iter().enumerate() {
        let is_recorded = match &expected {
            Expected::Any => Some(recorded[number]),
            Expected::Fact { fact, .. } if facts[number] == *fact => Some(is_fact_recorded(*fact)),
            Expected::Fact { .. } | Expected::Refused(_) => None,
        };
        let authorized = judgment.authorize(one);
        let authorized = authorized.map(|it| matches!(it, Authorization::Recorded(_)));
        assert_eq!(authorized, is_recorded, "seed {seed}, answer {number}");
    }
    expected
}

/// The narinfos of `answers` with their signers.
fn signed(world: &World, answers: &[(usize, Vec<usize>)], recorded: &[bool]) -> Vec<SignedNarInfo> {
    let signed = answers.iter().zip(recorded);
    let signed = signed.map(|((narinfo, keys), is_recorded)| {
        let ids = keys.iter().map(|key| Arc::clone(&world.ids[*key]));
        let mut all = ids.map(Signer::GuixKey);
        let mut signers = Signers::one(all.next().unwrap());
        all.for_each(|signer| signers.add(signer));
        SignedNarInfo {
            narinfo: Arc::clone(&world.narinfos[*narinfo].0),
            signers,
            is_recorded: *is_recorded,
        }
    });
    signed.collect()
}

#[test]
fn random_votes_are_counted_as_the_model_counts_them() {
    let world = world();
    let mut outcomes = BTreeMap::new();
    let seeds = crate::testing::seeds(100_000);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let outcome = match check(seed, &world) {
            Expected::Any => "any",
            Expected::Fact {
                objection: None, ..
            } => "accepted",
            Expected::Fact { .. } => "accepted with a warning",
            Expected::Refused(reason) => reason,
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    println!("{outcomes:?}");
    let is_frequent = |number: &u64| *number >= count / 100;
    assert!(count < 1000 || (outcomes.len() == 5 && outcomes.values().all(is_frequent)));
}

fn faults(terms: PolicyTerms, keys: &AuthorizedKeys) -> Vec<String> {
    let (_, faults) = TrustPolicy::new(terms, keys, NOW);
    faults.iter().map(ToString::to_string).collect()
}

/// The Nix key `name`, with a point of which there is one for each `seed`.
fn nix_key_of(name: &str, seed: u8) -> String {
    let key = SigningKey::from_bytes([seed; 32]);
    let id = PublicKey::from_sexp(key.public_key().clone()).unwrap();
    let point = data_encoding::HEXUPPER.decode(guix_digits(id.id()).as_bytes());
    format!("{name}:{}", data_encoding::BASE64.encode(&point.unwrap()))
}

fn nix_keys(keys: &[(&str, u8)]) -> AuthorizedKeys {
    let keys: Vec<String> = keys
        .iter()
        .map(|(name, seed)| nix_key_of(name, *seed))
        .collect();
    AuthorizedKeys::Nix(TrustedKeys::parse(&keys.join(" ")).unwrap())
}

/// No signature covers the name of a Nix key: who has the key can sign under both names.
#[test]
fn a_nix_key_under_two_names_has_one_vote() {
    let keys = nix_keys(&[("a-1", 1), ("b-1", 1)]);
    let terms = PolicyTerms {
        need: 2,
        ..PolicyTerms::default()
    };
    let (policy, _) = TrustPolicy::new(terms.clone(), &keys, NOW);
    let [one, other] = ["a-1", "b-1"].map(|name| {
        let signer = Signer::NixKey(nix_key_of(name, 1).into());
        policy.voter(&signer).unwrap()
    });
    let mut fact = crate::trust::verdict::VotedFact {
        nar_hash: world().narinfos[0].0.nar_hash(),
        nar_size: 1,
        voters: vec![one],
    };
    fact.add(other);
    assert_eq!(fact.voters.len(), 1);
    assert!(faults(terms.clone(), &keys)[0].contains("only 1 can vote here"));

    let principals = PolicyTerms {
        principals: vec![principal("one", &["a-1"]), principal("other", &["b-1"])],
        ..terms
    };
    let faults = faults(principals, &keys);
    assert!(
        faults[0].contains("have the same key `nix:b-1`"),
        "{faults:?}"
    );
    assert!(faults[1].contains("none can vote here"), "{faults:?}");
}

/// The same RSA key with and without a zero in front of its numbers, and a key that is listed twice.
#[test]
fn a_key_in_several_notations_has_one_vote() {
    let modulus = "FF".repeat(256);
    let keys = [("00", ""), ("", "00"), ("", "00")].map(|(before_n, before_e)| {
        let key = format!("(rsa (n #{before_n}{modulus}#) (e #{before_e}010001#))");
        PublicKey::parse(format!("(public-key {key})").as_bytes()).unwrap()
    });
    let entries = keys.each_ref().map(|key| {
        let key = key.as_sexp();
        format!("(entry {key} (tag (guix import)))")
    });
    let acl = Acl::parse(format!("(acl {})", entries.concat()).as_bytes()).unwrap();
    let keys = AuthorizedKeys::Guix(acl.clone());
    assert_eq!(acl.keys().count(), 3);

    let terms = PolicyTerms {
        need: 2,
        ..PolicyTerms::default()
    };
    assert_eq!(
        faults(terms.clone(), &keys),
        ["2 principals have to agree, and only 1 can vote here, so such items are refused"]
    );

    let expired = PolicyTerms {
        need: 1,
        principals: vec![Principal {
            expires: Some((NOW, "2026-01-01".to_owned())),
            ..principal("old", &["a-3"])
        }],
        ..PolicyTerms::default()
    };
    assert_eq!(
        faults(expired, &keys).last().unwrap(),
        "1 principal has to agree, and none can vote here, so such items are refused"
    );

    let named = format!("guix:{}", acl.keys().next().unwrap().short_name());
    let one_principal = PolicyTerms {
        need: 1,
        principals: vec![principal("one", &[&named])],
        ..terms.clone()
    };
    assert_eq!(faults(one_principal, &keys), Vec::<String>::new());

    let two_principals = PolicyTerms {
        principals: vec![principal("one", &[&named]), principal("other", &[&named])],
        ..terms
    };
    let faults = faults(two_principals, &keys);
    assert!(
        faults[0].contains("`one` and `other` have the same key"),
        "{faults:?}"
    );
}

#[test]
fn rules_are_compared_with_names_and_not_with_hashes() {
    let item = |text: &str| crate::format::store_path::StorePath::parse(text).unwrap();
    let gcc = item("gcccccccccccccccccccccccccccccc1-hello-1.0");
    let kernel = item("0000000000000000000000000000000a-linux-libre-6.1");
    for (names, expected) in [
        ("g*", [2, 2]),
        ("*gcc*", [2, 2]),
        ("hello-*", [1, 2]),
        ("*-linux-libre-*", [2, 1]),
        ("linux-libre-*", [2, 1]),
        ("gcccccccccccccccccccccccccccccc1-*", [1, 2]),
        ("gccccccccccccccccccccccccccccccc1*", [2, 2]),
    ] {
        let terms = PolicyTerms {
            need: 2,
            rules: vec![NeedRule {
                names: NamePattern::new(names),
                need: 1,
            }],
            on_dissent: Some(Objection::Refuse),
            ..PolicyTerms::default()
        };
        let (policy, _) = TrustPolicy::new(terms, &world().keys, NOW);
        let needs = [&gcc, &kernel].map(|item| policy.quorum(item.as_ref()).unwrap());
        assert_eq!(needs, expected, "{names}");
    }
}

fn principal(name: &str, keys: &[&str]) -> Principal {
    Principal {
        name: name.to_owned(),
        keys: keys
            .iter()
            .map(|key| KeyName::parse(key).unwrap())
            .collect(),
        expires: None,
    }
}

#[test]
fn keys_that_do_not_vote_are_reported() {
    let keys = nix_keys(&[("a-1", 1), ("a-2", 2), ("a-3", 3)]);
    let terms = PolicyTerms {
        need: 2,
        principals: vec![
            principal("one", &["a-1", "nix:a-2", "guix:0123456789ABCDEF"]),
            principal("other", &[&nix_key_of("a-2", 2), "a-9"]),
            Principal {
                expires: Some((NOW, "2026-01-01".to_owned())),
                ..principal("old", &["a-3"])
            },
        ],
        ..PolicyTerms::default()
    };
    let shown = nix_key_of("a-2", 2);
    assert_eq!(
        faults(terms, &keys),
        [
            format!(
                "the principals `one` and `other` have the same key `nix:{shown}`, so it votes for neither of them"
            ),
            "the key `nix:a-9` of the principal `other` is not authorized, so it does not vote"
                .to_owned(),
            "the principal `old` does not vote: it expired after 2026-01-01".to_owned(),
            "2 principals have to agree, and only 1 can vote here, so such items are refused"
                .to_owned(),
        ]
    );
    assert_eq!(faults(PolicyTerms::default(), &keys), Vec::<String>::new());

    let two = PolicyTerms {
        need: 2,
        ..PolicyTerms::default()
    };
    assert_eq!(faults(two.clone(), &keys), Vec::<String>::new());
    let unauthenticated = faults(two, &AuthorizedKeys::AllowUnauthenticated);
    assert_eq!(unauthenticated.len(), 1, "{unauthenticated:?}");
}

#[test]
fn a_name_that_several_keys_have_is_ambiguous() {
    let mut keys = TrustedKeys::official_nix_server()
        .iter()
        .next()
        .unwrap()
        .id()
        .to_string();
    keys.push_str(" cache.nixos.org-1:");
    let other = SigningKey::from_bytes([9; 32]);
    let id = PublicKey::from_sexp(other.public_key().clone()).unwrap();
    let q = data_encoding::HEXUPPER
        .decode(guix_digits(id.id()).as_bytes())
        .unwrap();
    keys.push_str(&data_encoding::BASE64.encode(&q));
    let keys = AuthorizedKeys::Nix(TrustedKeys::parse(&keys).unwrap());
    let terms = PolicyTerms {
        principals: vec![principal("one", &["cache.nixos.org-1"])],
        ..PolicyTerms::default()
    };
    let faults = faults(terms, &keys);
    assert!(
        faults[0].starts_with("several authorized keys are named `nix:cache.nixos.org-1`"),
        "{faults:?}"
    );
    assert_eq!(faults.len(), 2, "no key can vote: {faults:?}");
}

#[test]
fn names_of_keys_are_read_in_both_forms() {
    for text in ["guix:8d156f295d24b0d9", "8D156F295D24B0D9"] {
        assert_eq!(
            KeyName::parse(text),
            Ok(KeyName::Guix("8D156F295D24B0D9".into()))
        );
    }
    for text in ["nix:a-1", "a-1"] {
        assert_eq!(KeyName::parse(text), Ok(KeyName::Nix("a-1".into())));
    }
    for text in ["", "nix:", ":AAAA", "guix:8D156F", "guix:nothing", "a b"] {
        assert!(KeyName::parse(text).is_err(), "{text}");
    }
}
