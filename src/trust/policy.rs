//! Who has to sign an item before it is used: one authorized key, or several principals that agree.
//!
//! A principal is a person or organization that is trusted independently of the others, with any number
//! of keys, which together have one vote. A vote is for a fact: the item, the hash and size of its nar, and its
//! references. It does not matter which server a signature came from. Without principals each
//! authorized key is its own. A key that is not authorized never votes, nor does one that two
//! principals claim, nor one whose principal has expired.
//!
//! Counting is done by [`super::verdict`].

use std::collections::HashMap;
use std::sync::Arc;

use super::acl::AuthorizedKeys;
use super::ballot::Voter;
use super::key_names::{GUIX_SHORT_DIGITS, guix_digits, nix_key, nix_name};
use super::name_pattern::NamePattern;
use super::signer::{SignatureScope, Signer};
use crate::format::store_path::StorePathRef;

/// What is done about an item of which the votes are not as they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Objection {
    /// The item is not used.
    #[default]
    Refuse,
    /// It is used if there is at least one vote, with a warning.
    Warn,
}

/// How the user names a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyName {
    /// A Guix key by its first digits, in capitals, or all of them.
    Guix(String),
    /// A Nix key by its name, or by `NAME:BASE64`.
    Nix(String),
}

impl KeyName {
    /// Parses `guix:DIGITS`, or `nix:NAME` or `nix:NAME:BASE64`; the prefix may be missing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bare_guix = Some(text).filter(|text| text.len() >= GUIX_SHORT_DIGITS && is_hex(text));
        if let Some(digits) = text.strip_prefix("guix:").or(bare_guix) {
            return match is_hex(digits) && digits.len() >= GUIX_SHORT_DIGITS {
                true => Ok(Self::Guix(digits.to_ascii_uppercase())),
                false => Err(format!(
                    "a Guix key is named by `guix:` and at least {GUIX_SHORT_DIGITS} of its hex digits"
                )),
            };
        }

        let name = text.strip_prefix("nix:").unwrap_or(text);
        match name.is_empty() || name.starts_with(':') || name.contains(char::is_whitespace) {
            true => Err("a Nix key is named by its name, or by NAME:BASE64".to_owned()),
            false => Ok(Self::Nix(name.to_owned())),
        }
    }

    /// The ids of those of `keys` that have this name; `None` if it names keys of the other dialect.
    fn ids(&self, keys: &AuthorizedKeys) -> Option<Vec<Arc<str>>> {
        match (self, keys) {
            (Self::Guix(digits), AuthorizedKeys::Guix(acl)) => {
                let ids = acl.keys().map(|key| key.id());
                let named = ids.filter(|id| guix_digits(id).starts_with(digits.as_str()));
                Some(named.cloned().collect())
            }
            (Self::Nix(name), AuthorizedKeys::Nix(keys)) => {
                let ids = keys.iter().map(|key| key.id());
                let named = ids.filter(|id| ***id == **name || nix_name(id) == name);
                Some(named.cloned().collect())
            }
            _ => None,
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl std::fmt::Display for KeyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Guix(digits) => write!(f, "guix:{digits}"),
            Self::Nix(name) => write!(f, "nix:{name}"),
        }
    }
}

/// A person or organization that is trusted, as the user states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The name in messages; no two principals share one.
    pub(crate) name: String,
    /// The keys.
    pub(crate) keys: Vec<KeyName>,
    /// From when on it does not vote any more, in Unix seconds, and the last day on which it does.
    pub(crate) expires: Option<(u64, String)>,
}

/// How many principals have to agree about the items of some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NeedRule {
    /// The names.
    pub(crate) names: NamePattern,
    /// How many.
    pub(crate) need: usize,
}

/// The policy as the user states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyTerms {
    /// How many principals have to agree, unless a rule says otherwise.
    pub(crate) need: usize,
    /// The first rule with the item's name decides.
    pub(crate) rules: Vec<NeedRule>,
    /// What is done about items with too few votes.
    pub(crate) on_too_few: Objection,
    /// What is done where principals disagree; `None`, if the user does not say, is to refuse, where
    /// votes are counted at all.
    pub(crate) on_dissent: Option<Objection>,
    /// The principals; without any, each authorized key is one.
    pub(crate) principals: Vec<Principal>,
}

impl Default for PolicyTerms {
    /// Any one authorized key.
    fn default() -> Self {
        Self {
            need: 1,
            rules: Vec::new(),
            on_too_few: Objection::Refuse,
            on_dissent: None,
            principals: Vec::new(),
        }
    }
}

/// What is wrong with a policy, beside these keys and at this time. Votes are missing because of it, so
/// that items are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyFault {
    #[error(
        "the key `{key}` of the principal `{principal}` is not authorized, so it does not vote"
    )]
    UnknownKey { principal: String, key: String },
    #[error(
        "several authorized keys are named `{key}`, so none of them votes for the principal \
         `{principal}`; give more of the key"
    )]
    AmbiguousKey { principal: String, key: String },
    #[error(
        "the principals `{one}` and `{other}` have the same key `{key}`, so it votes for neither of them"
    )]
    SharedKey {
        one: String,
        other: String,
        key: String,
    },
    #[error("the principal `{principal}` does not vote: it expired after {last_day}")]
    Expired { principal: String, last_day: String },
    #[error(
        "{} to agree, and {} can vote here, so such items are refused",
        match need {
            1 => "1 principal has".to_owned(),
            need => format!("{need} principals have"),
        },
        match voters {
            0 => "none".to_owned(),
            voters => format!("only {voters}"),
        }
    )]
    OutOfReach { need: usize, voters: usize },
    #[error("signatures are not verified, so no key can vote, and every item is refused")]
    Unauthenticated,
}

/// What tells one key from another: the id of a Guix key, and a Nix key without its name, under which
/// anyone can publish the key's signatures.
type VotingKey = Arc<str>;

/// Who votes, and how many votes an item needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustPolicy {
    terms: PolicyTerms,
    /// The voter of each key; `None`: each key is its own.
    voters: Option<HashMap<VotingKey, Voter>>,
}

impl TrustPolicy {
    /// The policy for `keys` at `now`, in Unix seconds, and what is wrong with it.
    pub(crate) fn new(
        terms: PolicyTerms,
        keys: &AuthorizedKeys,
        now: u64,
    ) -> (Self, Vec<PolicyFault>) {
        let mut faults = Vec::new();
        let voters = (!terms.principals.is_empty())
            .then(|| voters_by_key(&terms.principals, keys, now, &mut faults));
        let policy = Self { terms, voters };
        policy.check_reach(keys, &mut faults);

        (policy, faults)
    }

    /// How many principals have to agree about `item`; `None` if any one authorized key suffices.
    pub(crate) fn quorum(&self, item: StorePathRef<'_>) -> Option<usize> {
        let mut rules = self.terms.rules.iter();
        let rule = rules.find(|rule| rule.names.matches_item(item));
        let need = rule.map_or(self.terms.need, |rule| rule.need);
        self.counts_votes(need).then_some(need)
    }

    fn counts_votes(&self, need: usize) -> bool {
        need > 1 || self.voters.is_some() || self.terms.on_dissent == Some(Objection::Refuse)
    }

    fn needs(&self) -> impl Iterator<Item = usize> {
        let rules = self.terms.rules.iter().map(|rule| rule.need);
        std::iter::once(self.terms.need).chain(rules)
    }

    /// Which signatures have to be examined.
    pub(crate) fn signature_scope(&self) -> SignatureScope {
        match self.needs().any(|need| self.counts_votes(need)) {
            true => SignatureScope::All,
            false => SignatureScope::First,
        }
    }

    pub(super) fn on_too_few(&self) -> Objection {
        self.terms.on_too_few
    }

    pub(super) fn on_dissent(&self) -> Objection {
        self.terms.on_dissent.unwrap_or_default()
    }

    /// Who votes when `signer` has signed.
    pub(super) fn voter(&self, signer: &Signer) -> Option<Voter> {
        let key = match signer {
            Signer::GuixKey(id) => id,
            Signer::NixKey(id) => nix_key(id),
            Signer::ContentAddress(_) | Signer::Unauthenticated => return None,
        };
        match &self.voters {
            Some(voters) => voters.get(key).cloned(),
            None => Some(Voter::new(key.into(), signer.display_name().into())),
        }
    }

    /// Finds out whether as many can vote as have to agree.
    fn check_reach(&self, keys: &AuthorizedKeys, faults: &mut Vec<PolicyFault>) {
        let mut needs: Vec<usize> = self
            .needs()
            .filter(|need| self.counts_votes(*need))
            .collect();
        if needs.is_empty() {
            return;
        }

        let keys: Vec<&str> = match keys {
            AuthorizedKeys::Guix(acl) => acl.keys().map(|key| &**key.id()).collect(),
            AuthorizedKeys::Nix(keys) => keys.iter().map(|key| nix_key(key.id())).collect(),
            AuthorizedKeys::AllowUnauthenticated => {
                return faults.push(PolicyFault::Unauthenticated);
            }
        };
        let mut names: Vec<&str> = match &self.voters {
            Some(voters) => voters.values().map(Voter::name).collect(),
            None => keys,
        };
        names.sort_unstable();
        names.dedup();

        let voters = names.len();
        needs.sort_unstable();
        needs.dedup();
        let out_of_reach = needs.into_iter().filter(|need| *need > voters);
        faults.extend(out_of_reach.map(|need| PolicyFault::OutOfReach { need, voters }));
    }
}

/// Which of `principals` each key votes for.
fn voters_by_key(
    principals: &[Principal],
    keys: &AuthorizedKeys,
    now: u64,
    faults: &mut Vec<PolicyFault>,
) -> HashMap<VotingKey, Voter> {
    // `None`: several principals claim the key.
    let mut owners: HashMap<VotingKey, Option<&Principal>> = HashMap::new();
    for principal in principals {
        for name in &principal.keys {
            let Some(key) = authorized_key(name, principal, keys, faults) else {
                continue;
            };
            let Some(other) = owners.insert(Arc::clone(&key), Some(principal)) else {
                continue;
            };
            if other.is_some_and(|other| other.name == principal.name) {
                continue;
            }
            owners.insert(key, None);
            faults.extend(other.map(|other| PolicyFault::SharedKey {
                one: other.name.clone(),
                other: principal.name.clone(),
                key: name.to_string(),
            }));
        }

        if let Some((_, last_day)) = principal.expires.as_ref().filter(|(at, _)| *at <= now) {
            faults.push(PolicyFault::Expired {
                principal: principal.name.clone(),
                last_day: last_day.clone(),
            });
        }
    }

    let valid = owners.into_iter().filter_map(|(key, principal)| {
        let principal = principal?;
        let is_valid = principal.expires.as_ref().is_none_or(|(at, _)| now < *at);
        is_valid.then_some((key, principal))
    });
    let voters = valid.map(|(key, principal)| {
        let name: Arc<str> = principal.name.as_str().into();
        (key, Voter::new(Arc::clone(&name), name))
    });
    voters.collect()
}

/// The one key among `keys` that `principal` names by `name`.
fn authorized_key(
    name: &KeyName,
    principal: &Principal,
    keys: &AuthorizedKeys,
    faults: &mut Vec<PolicyFault>,
) -> Option<VotingKey> {
    let mut ids = name.ids(keys)?;
    // The same key may be listed twice.
    ids.sort_unstable();
    ids.dedup();

    let (principal, key) = (principal.name.clone(), name.to_string());
    match &ids[..] {
        [id] => {
            return Some(match keys {
                AuthorizedKeys::Nix(_) => nix_key(id).into(),
                AuthorizedKeys::Guix(_) | AuthorizedKeys::AllowUnauthenticated => Arc::clone(id),
            });
        }
        [] => faults.push(PolicyFault::UnknownKey { principal, key }),
        _ => faults.push(PolicyFault::AmbiguousKey { principal, key }),
    }
    None
}

#[cfg(test)]
mod tests;
