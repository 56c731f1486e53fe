//! The verdict: a claimed [`NarInfo`] becomes an [`AuthorizedNarInfo`], or is refused by reason.
//!
//! It takes two steps. Verifying the signatures makes a `SignedNarInfo`, which at least one authorized
//! key has signed. Then the policy decides: by default that is enough for each of them; else the votes
//! of all that servers have about an item are counted (`judge`), and only what states the accepted
//! fact is authorized.
//!
//! Only this module makes an [`AuthorizedNarInfo`], after verifying all signatures that it needs in
//! this run, so a function that takes one cannot be passed a claim. What relies on the signatures
//! that an earlier run has verified has another type, `PreviouslyAuthorizedNarInfo`, which cannot be
//! converted.
//!
//! The store path, NarHash, NarSize and references of an authorized narinfo are verified. Downloads
//! are not, nor are in Nix's dialect deriver, system and CA; in Guix's a server can add those three
//! where the signer left them out, but not change them.
//!
//! An item of Nix whose store path proves its content needs no signature and no votes. Its store path
//! and references are verified; so is its content as soon as it has been read
//! (`AuthorizedNarInfo::file_hash`), and with it NarSize (`AuthorizedNarInfo::verified_nar_size`).

use std::sync::Arc;

use super::acl::AuthorizedKeys;
pub use super::ballot::{Ballot, VotedFact, Voter};
use super::content_address::ContentProof;
use super::policy::{Objection, TrustPolicy};
pub use super::refusal::Refusal;
use super::signed::{SignedNarInfo, verify_all};
use super::signer::{SignatureScope, Signer, Signers};
use crate::format::narinfo::{NarFact, NarInfo};
use crate::format::store_path::{StoreDir, StorePathRef};

/// A narinfo of the requested item that as many authorized keys have signed as the policy requires, or
/// whose content is proved by the store path.
#[derive(Debug, Clone)]
pub struct AuthorizedNarInfo {
    narinfo: Arc<NarInfo>,
    signers: Signers,
}

impl AuthorizedNarInfo {
    /// The narinfo.
    #[must_use]
    pub fn narinfo(&self) -> &Arc<NarInfo> {
        &self.narinfo
    }

    /// The key for messages: the first digits of a Guix key, or the name of a Nix key;
    /// `content-addressed` if the store path proves the content. The first one of several.
    #[must_use]
    pub fn signed_by(&self) -> &str {
        self.signers.first().display_name()
    }

    /// All keys that authorize it, each as [`AuthorizedNarInfo::signed_by`]; where votes are counted,
    /// also those that have signed the same in the narinfos of other servers.
    pub fn signers(&self) -> impl Iterator<Item = &str> {
        self.signers.iter().map(Signer::display_name)
    }

    /// The SHA-256 that the item, a file that is not executable, must have for its store path to
    /// prove it; `None` if NarHash is verified.
    #[must_use]
    pub(crate) fn file_hash(&self) -> Option<[u8; 32]> {
        match self.signers.first() {
            Signer::ContentAddress(ContentProof::File(hash)) => Some(*hash),
            _ => None,
        }
    }

    /// Bytes of its nar, if the signature covers them or authentication was switched off. Where only
    /// the store path proves the content, `None`: until the nar has been read, any server may claim
    /// any size.
    #[must_use]
    pub(crate) fn verified_nar_size(&self) -> Option<u64> {
        match self.signers.first() {
            Signer::ContentAddress(_) => None,
            Signer::GuixKey(_) | Signer::NixKey(_) | Signer::Unauthenticated => {
                Some(self.narinfo.nar_size())
            }
        }
    }
}

/// A narinfo of the requested item that is authorized because of signatures of which an earlier run
/// has verified some, by keys that are authorized now. Enough for reports; every change of a store
/// takes an [`AuthorizedNarInfo`].
#[derive(Debug, Clone)]
pub(crate) struct PreviouslyAuthorizedNarInfo {
    narinfo: Arc<NarInfo>,
    signers: Signers,
}

impl PreviouslyAuthorizedNarInfo {
    /// The narinfo, [abridged](NarInfo::abridged).
    #[must_use]
    pub(crate) fn narinfo(&self) -> &Arc<NarInfo> {
        &self.narinfo
    }

    /// The key, as [`AuthorizedNarInfo::signed_by`].
    #[must_use]
    pub(crate) fn signed_by(&self) -> &str {
        self.signers.first().display_name()
    }

    /// All keys, as [`AuthorizedNarInfo::signers`].
    pub(crate) fn signers(&self) -> impl Iterator<Item = &str> {
        self.signers.iter().map(Signer::display_name)
    }
}

/// An authorized narinfo, by when its signatures were verified.
#[derive(Debug)]
pub(crate) enum Authorization {
    /// All that it needs in this run.
    Verified(AuthorizedNarInfo),
    /// Some of them in an earlier run.
    Recorded(PreviouslyAuthorizedNarInfo),
}

/// What the policy decides about the narinfos of an item.
#[derive(Debug, Clone)]
pub(crate) struct Judgment(Decision);

#[derive(Debug, Clone)]
enum Decision {
    /// One authorized key suffices, so each is authorized.
    Each,
    /// The store path proves the content of some, so that votes do not matter.
    Proved,
    /// Those that state this fact are authorized.
    Accepted {
        fact: NarFact,
        /// All who have signed it, in the order of the servers.
        signers: Signers,
        is_recorded: bool,
        ballot: Arc<Ballot>,
        /// Why it would not be accepted if the policy did not say to warn only.
        objection: Option<Refusal>,
    },
    /// None is.
    Refused {
        refusal: Refusal,
        ballot: Arc<Ballot>,
    },
}

impl Judgment {
    /// `signed` as an authorized narinfo, if it was judged to be one.
    #[must_use]
    pub(crate) fn authorize(&self, signed: &SignedNarInfo) -> Option<Authorization> {
        let (signers, is_recorded) = match &self.0 {
            Decision::Each => (signed.signers.clone(), signed.is_recorded),
            Decision::Proved => {
                let proof = signed.signers.content_proof()?;
                (
                    Signers::one(Signer::ContentAddress(proof)),
                    signed.is_recorded,
                )
            }
            Decision::Accepted {
                fact,
                signers,
                is_recorded,
                ..
            } => {
                if NarFact::of(&signed.narinfo) != *fact {
                    return None;
                }
                (signers.clone(), *is_recorded)
            }
            Decision::Refused { .. } => return None,
        };

        let narinfo = Arc::clone(&signed.narinfo);
        Some(match is_recorded {
            false => Authorization::Verified(AuthorizedNarInfo { narinfo, signers }),
            true => Authorization::Recorded(PreviouslyAuthorizedNarInfo { narinfo, signers }),
        })
    }

    /// Why nothing is authorized.
    #[must_use]
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        match &self.0 {
            Decision::Refused { refusal, .. } => Some(refusal),
            Decision::Each | Decision::Proved | Decision::Accepted { .. } => None,
        }
    }

    /// Why a signed narinfo that is not authorized is not.
    #[must_use]
    pub(crate) fn refusal_of_others(&self) -> Option<Refusal> {
        match &self.0 {
            Decision::Accepted { ballot, .. } => Some(Refusal::Dissent(Arc::clone(ballot))),
            Decision::Refused { refusal, .. } => Some(refusal.clone()),
            Decision::Each | Decision::Proved => None,
        }
    }

    /// Why what is authorized would be refused if the policy did not say to warn only.
    #[must_use]
    pub(crate) fn objection(&self) -> Option<&Refusal> {
        match &self.0 {
            Decision::Accepted { objection, .. } => objection.as_ref(),
            Decision::Each | Decision::Proved | Decision::Refused { .. } => None,
        }
    }

    /// The votes, where they were counted.
    #[must_use]
    pub(crate) fn ballot(&self) -> Option<&Arc<Ballot>> {
        match &self.0 {
            Decision::Accepted { ballot, .. } | Decision::Refused { ballot, .. } => Some(ballot),
            Decision::Each | Decision::Proved => None,
        }
    }
}

/// Decides about the narinfos that servers have of one item, in the order of the servers, when votes
/// of `need` principals are required; `None`: any one authorized key suffices.
///
/// Two facts that both have enough votes are never accepted.
#[must_use]
pub(crate) fn judge(
    policy: &TrustPolicy,
    need: Option<usize>,
    signed: &[&SignedNarInfo],
) -> Judgment {
    let Some(need) = need else {
        return Judgment(Decision::Each);
    };
    if signed.iter().any(|it| it.signers.content_proof().is_some()) {
        return Judgment(Decision::Proved);
    }

    let tally = count_votes(policy, signed);
    let ballot = Arc::new(Ballot {
        need,
        facts: tally.iter().map(|(_, fact)| fact.clone()).collect(),
    });

    match decide(policy, &tally, &ballot) {
        Ok((fact, objection)) => accept(fact, ballot, objection, signed),
        Err(refusal) => Judgment(Decision::Refused { refusal, ballot }),
    }
}

/// The accepted fact, and why it would not be accepted if the policy did not say to warn only.
fn decide(
    policy: &TrustPolicy,
    tally: &[(NarFact, VotedFact)],
    ballot: &Arc<Ballot>,
) -> Result<(NarFact, Option<Refusal>), Refusal> {
    let too_few = Refusal::TooFewVotes(Arc::clone(ballot));
    let dissent = Refusal::Dissent(Arc::clone(ballot));
    let [(first, _), others @ ..] = tally else {
        return Err(too_few);
    };

    let enough = tally
        .iter()
        .filter(|(_, fact)| fact.voters.len() >= ballot.need);
    let enough = enough.count();
    if enough > 1 || (!others.is_empty() && policy.on_dissent() == Objection::Refuse) {
        return Err(dissent);
    }
    match (enough, policy.on_too_few()) {
        (0, Objection::Refuse) => Err(too_few),
        (0, Objection::Warn) if others.is_empty() => Ok((*first, Some(too_few))),
        _ => Ok((*first, Some(dissent).filter(|_| !others.is_empty()))),
    }
}

/// The votes for each fact that has one; those with most first, and among them those of the first
/// server.
fn count_votes(policy: &TrustPolicy, signed: &[&SignedNarInfo]) -> Vec<(NarFact, VotedFact)> {
    let mut tally: Vec<(NarFact, VotedFact)> = Vec::new();
    for one in signed {
        let fact = NarFact::of(&one.narinfo);
        for voter in one.signers.iter().filter_map(|signer| policy.voter(signer)) {
            match tally.iter_mut().find(|(known, _)| *known == fact) {
                Some((_, votes)) => votes.add(voter),
                None => tally.push((
                    fact,
                    VotedFact {
                        nar_hash: one.narinfo.nar_hash(),
                        nar_size: one.narinfo.nar_size(),
                        voters: vec![voter],
                    },
                )),
            }
        }
    }

    // Stable, so the order of the servers decides among equals.
    tally.sort_by_key(|(_, fact)| std::cmp::Reverse(fact.voters.len()));
    tally
}

fn accept(
    fact: NarFact,
    ballot: Arc<Ballot>,
    objection: Option<Refusal>,
    signed: &[&SignedNarInfo],
) -> Judgment {
    let mut same = signed
        .iter()
        .filter(|one| NarFact::of(&one.narinfo) == fact);
    let first = same.next().expect("a fact that has votes was signed");
    let (mut signers, mut is_recorded) = (first.signers.clone(), first.is_recorded);
    for other in same {
        is_recorded |= other.is_recorded;
        other
            .signers
            .iter()
            .for_each(|signer| signers.add(signer.clone()));
    }

    Judgment(Decision::Accepted {
        fact,
        signers,
        is_recorded,
        ballot,
        objection,
    })
}

/// Accepts `narinfo` if it describes the item `asked` and one of `keys` has signed it, or its store
/// path proves the content. `store_dir` is the one it was parsed for.
///
/// # Errors
/// See [`Refusal`].
pub fn authorize(
    narinfo: Arc<NarInfo>,
    asked: StorePathRef<'_>,
    keys: &AuthorizedKeys,
    store_dir: &StoreDir,
) -> Result<AuthorizedNarInfo, Refusal> {
    let mut verdicts = authorize_all(vec![(narinfo, asked)], keys, store_dir);
    verdicts.pop().expect("one claim has one verdict")
}

/// The verdicts of [`authorize`] for many claims, each a narinfo and the requested item, in their
/// order. Guix's signatures take less than half the time when they are verified together
/// (benchmark `guix_narinfos_parse_and_authorize_together`).
#[must_use]
pub fn authorize_all(
    claims: Vec<(Arc<NarInfo>, StorePathRef<'_>)>,
    keys: &AuthorizedKeys,
    store_dir: &StoreDir,
) -> Vec<Result<AuthorizedNarInfo, Refusal>> {
    let signed = verify_all(claims, keys, store_dir, SignatureScope::First).into_iter();
    let verdicts = signed.map(|signed| {
        signed.map(
            |SignedNarInfo {
                 narinfo, signers, ..
             }| AuthorizedNarInfo { narinfo, signers },
        )
    });
    verdicts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::content_address::ContentAddress;
    use crate::trust::acl::Acl;
    use crate::trust::guix::PublicKey;
    use crate::trust::nix::TrustedKeys;
    use crate::trust::signed::reuse_signature;

    const TEXT: &str = include_str!("../../fixtures/signatures/vector-a.narinfo");
    const KEY: &[u8] = include_bytes!("../../fixtures/signatures/vector-a.pub");
    const ITEM: &str = "0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0";

    fn dir() -> StoreDir {
        StoreDir::parse(StoreDir::GUIX).unwrap()
    }

    fn narinfo() -> Arc<NarInfo> {
        Arc::new(NarInfo::parse(TEXT, &dir()).unwrap())
    }

    fn keys() -> AuthorizedKeys {
        let mut acl = Acl::default();
        acl.authorize(PublicKey::parse(KEY).unwrap());
        AuthorizedKeys::Guix(acl)
    }

    /// The id of the key that signed the narinfo, as the lookup cache keeps it.
    fn key_id(keys: &AuthorizedKeys) -> String {
        let claims = vec![(narinfo(), StorePathRef::parse(ITEM).unwrap())];
        let signed = verify_all(claims, keys, &dir(), SignatureScope::First);
        signed[0].as_ref().unwrap().key_id().to_owned()
    }

    fn reuse(
        narinfo: &NarInfo,
        asked: StorePathRef<'_>,
        key_id: &str,
        keys: &AuthorizedKeys,
    ) -> Result<Authorization, Refusal> {
        let signed = reuse_signature(narinfo, asked, key_id, keys, SignatureScope::First)?;
        let any_key = judge(&TrustPolicy::default(), None, &[]);
        Ok(any_key.authorize(&signed.unwrap()).unwrap())
    }

    fn verdict(item: &str, keys: &AuthorizedKeys) -> Result<AuthorizedNarInfo, Refusal> {
        authorize(narinfo(), StorePathRef::parse(item).unwrap(), keys, &dir())
    }

    #[test]
    fn names_the_key_that_signed() {
        let authorized = verdict(ITEM, &keys()).unwrap();
        assert_eq!(authorized.signed_by(), "E8E85766778A8A68");
        assert_eq!(
            authorized.signers().collect::<Vec<_>>(),
            ["E8E85766778A8A68"]
        );
        assert_eq!(authorized.narinfo().text(), TEXT);
        let size = authorized.narinfo().nar_size();
        assert_eq!(authorized.verified_nar_size(), Some(size));
    }

    #[test]
    fn another_item_is_refused_even_with_a_valid_signature() {
        let other_hash = "8yrx9brcs5jjh07qvgl5i9dg7kvn60m4-debconf-1.0";
        let other_name = "0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.1";
        for item in [other_hash, other_name] {
            for keys in [keys(), AuthorizedKeys::AllowUnauthenticated] {
                let refusal = verdict(item, &keys).unwrap_err();
                assert_eq!(refusal.reason(), "wrong-item");
                let message = format!("the server answered for {ITEM} when asked for {item}");
                assert_eq!(refusal.to_string(), message);
                let asked = StorePathRef::parse(item).unwrap();
                let again = reuse(&narinfo(), asked, &key_id(&keys), &keys);
                assert_eq!(again.unwrap_err(), refusal);
            }
        }
    }

    #[test]
    fn everything_is_refused_without_keys() {
        let refusal = verdict(ITEM, &AuthorizedKeys::Guix(Acl::default())).unwrap_err();
        assert_eq!(refusal.reason(), "unauthorized-key");
        let nix = AuthorizedKeys::Nix(TrustedKeys::official_nix_server());
        assert_eq!(verdict(ITEM, &nix).unwrap_err(), Refusal::Unsigned);
    }

    /// A narinfo without a signature of `builtins.toFile "foo" "bar"`.
    fn content_addressed(dir: &StoreDir, references: &str, address: &str) -> Arc<NarInfo> {
        let text = format!(
            "StorePath: {}/vxjiwkjkn7x4079qvh1jkl5pn05j2aw0-foo\nURL: x\nCompression: none\n\
             NarHash: sha256:{}\nNarSize: 7\nReferences: {references}\nCA: {address}\n",
            dir.as_str(),
            "0".repeat(52),
        );
        Arc::new(NarInfo::parse(text, dir).unwrap())
    }

    #[test]
    fn a_store_path_that_proves_the_content_needs_no_key() {
        let bar = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";
        let nix = StoreDir::parse(StoreDir::NIX).unwrap();
        let item = "vxjiwkjkn7x4079qvh1jkl5pn05j2aw0-foo";
        let asked = StorePathRef::parse(item).unwrap();
        let keys = AuthorizedKeys::Nix(TrustedKeys::parse("").unwrap());

        let narinfo = content_addressed(&nix, "", &format!("text:{bar}"));
        let authorized = authorize(Arc::clone(&narinfo), asked, &keys, &nix).unwrap();
        assert_eq!(authorized.signed_by(), "content-addressed");
        assert_eq!(authorized.verified_nar_size(), None);
        assert!(
            authorized.file_hash().is_some(),
            "its content is to be checked"
        );
        let cached = reuse(&narinfo, asked, "content-addressed", &keys);
        assert!(cached.is_err(), "it is proved each time");
        let other = StorePathRef::parse(ITEM).unwrap();
        let refusal = authorize(narinfo, other, &keys, &nix).unwrap_err();
        assert_eq!(refusal.reason(), "wrong-item");

        for (references, address) in [
            (item, format!("text:{bar}")),
            (ITEM, format!("text:{bar}")),
            ("", format!("fixed:{bar}")),
            ("", format!("fixed:r:{bar}")),
            ("", format!("text:{bar}0")),
            ("", String::new()),
        ] {
            let narinfo = content_addressed(&nix, references, &address);
            let refusal = authorize(narinfo, asked, &keys, &nix).unwrap_err();
            assert_eq!(refusal, Refusal::Unsigned, "{references} {address}");
        }
        let narinfo = content_addressed(&dir(), "", &format!("text:{bar}"));
        let guix = AuthorizedKeys::Guix(Acl::default());
        let refusal = authorize(narinfo, asked, &guix, &dir()).unwrap_err();
        assert_eq!(refusal, Refusal::Unsigned, "Guix has no such rule");
    }

    /// The path of a derivation proves its text, not that the outputs which the text names are those of it.
    #[test]
    fn a_derivation_needs_a_signature_whatever_its_store_path_proves() {
        let hash = "sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9";
        let nix = StoreDir::parse(StoreDir::NIX).unwrap();
        let keys = AuthorizedKeys::Nix(TrustedKeys::parse("").unwrap());
        for address in [format!("text:{hash}"), format!("fixed:r:{hash}")] {
            for (name, is_accepted) in [("a.drv", false), ("a.drv.drv", false), ("a.drv.txt", true)]
            {
                let parsed = ContentAddress::parse(&address).unwrap();
                let item = parsed.item_base(name, &[], &nix).unwrap();
                let text = format!(
                    "StorePath: /nix/store/{item}\nURL: x\nNarHash: {hash}\nNarSize: 7\n\
                     References: \nCA: {address}\n"
                );
                let narinfo = Arc::new(NarInfo::parse(text, &nix).unwrap());
                let asked = StorePathRef::parse(&item).unwrap();
                let verdict = authorize(narinfo, asked, &keys, &nix);
                let expected = if is_accepted {
                    None
                } else {
                    Some(Refusal::Unsigned)
                };
                assert_eq!(verdict.err(), expected, "{item} {address}");
            }
        }
    }

    /// The hash of the nar is in the address, and so NarHash proves the content.
    #[test]
    fn the_hash_of_a_nar_is_the_one_in_its_content_address() {
        let hash = "sha256:08813cbee9903c62be4c5027726a418a300da4500b2d369d3af9286f4815ceba";
        let item = "4q0pg5zpfmznxscq3avycvf9xdvx50n3-bar";
        let nix = StoreDir::parse(StoreDir::NIX).unwrap();
        let asked = StorePathRef::parse(item).unwrap();
        let keys = AuthorizedKeys::Nix(TrustedKeys::official_nix_server());
        for (nar_hash, is_proved) in [(hash.to_owned(), true), (hash.replace('8', "9"), false)] {
            let text = format!(
                "StorePath: /nix/store/{item}\nURL: x\nNarHash: {nar_hash}\nNarSize: 7\n\
                 References: \nSig: cache.nixos.org-1:AAAA\nCA: fixed:r:{hash}\n"
            );
            let narinfo = Arc::new(NarInfo::parse(text, &nix).unwrap());
            let verdict = authorize(narinfo, asked, &keys, &nix);
            assert_eq!(verdict.is_ok(), is_proved);
            if let Ok(authorized) = verdict {
                assert_eq!(authorized.file_hash(), None);
                assert_eq!(authorized.verified_nar_size(), None);
            }
        }
    }

    #[test]
    fn any_narinfo_is_accepted_when_authentication_is_off() {
        let authorized = verdict(ITEM, &AuthorizedKeys::AllowUnauthenticated).unwrap();
        assert_eq!(authorized.signed_by(), "nobody");
        assert_eq!(key_id(&AuthorizedKeys::AllowUnauthenticated), "");
    }

    #[test]
    fn a_cached_verdict_is_valid_as_long_as_its_key_is_authorized() {
        let authorized = verdict(ITEM, &keys()).unwrap();
        let asked = StorePathRef::parse(ITEM).unwrap();
        let recorded = reuse(&narinfo(), asked, &key_id(&keys()), &keys()).unwrap();
        let Authorization::Recorded(recorded) = recorded else {
            panic!("the signature was not verified in this run");
        };
        assert_eq!(recorded.signed_by(), authorized.signed_by());
        let empty = AuthorizedKeys::Guix(Acl::default());
        let refusal = reuse(&narinfo(), asked, &key_id(&keys()), &empty).unwrap_err();
        assert_eq!(refusal.reason(), "unauthorized-key");
        let id_without_authentication = "";
        assert!(
            reuse(&narinfo(), asked, id_without_authentication, &keys()).is_err(),
            "a narinfo that was never verified is refused"
        );
    }
}
