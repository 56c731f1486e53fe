//! How the principals voted about an item: the facts that they signed, and who signed which.

use std::fmt;
use std::sync::Arc;

use crate::format::hash::NarHash;

/// A principal that has signed something about an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    id: Arc<str>,
    name: Arc<str>,
}

impl Voter {
    /// The voter that `id` identifies; messages show `name`.
    pub(super) fn new(id: Arc<str>, name: Arc<str>) -> Self {
        Self { id, name }
    }

    /// The name of the principal; that of the key, where the settings name no principals.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What some principals state of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VotedFact {
    /// The hash of the nar.
    pub nar_hash: NarHash,
    /// The bytes of the nar.
    pub nar_size: u64,
    /// The principals that have signed it, each once, in the order of the servers; at least one.
    pub voters: Vec<Voter>,
}

impl VotedFact {
    /// Counts a vote; a second one of the same principal is none.
    pub(super) fn add(&mut self, voter: Voter) {
        if !self.voters.iter().any(|known| known.id == voter.id) {
            self.voters.push(voter);
        }
    }

    /// The names of the voters, for a sentence.
    fn names(&self) -> String {
        let names: Vec<String> = self
            .voters
            .iter()
            .map(|voter| voter.name.escape_debug().to_string())
            .collect();
        names.join(" and ")
    }
}

/// All votes about an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ballot {
    /// How many principals have to sign the same.
    pub need: usize,
    /// What was signed, that with the most votes first; two facts differ in the hash or size of the nar
    /// or in the references.
    pub facts: Vec<VotedFact>,
}

impl Ballot {
    /// The votes for the fact that has the most.
    #[must_use]
    pub fn most_votes(&self) -> usize {
        self.facts.first().map_or(0, |fact| fact.voters.len())
    }

    /// How many votes there are of how many, and whose.
    pub(super) fn count_text(&self) -> String {
        let count = format!("{} of {} votes", self.most_votes(), self.need);
        match self.facts.first() {
            Some(fact) => format!("{count}, by {}", fact.names()),
            None => format!("{count}, since no key that votes has signed it"),
        }
    }

    /// Who signed what.
    pub(super) fn facts_text(&self) -> String {
        let facts = self.facts.iter().map(SignedText);
        let facts: Vec<String> = facts.map(|fact| fact.to_string()).collect();
        facts.join(", but ")
    }
}

/// A fact in a sentence.
struct SignedText<'b>(&'b VotedFact);

impl fmt::Display for SignedText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VotedFact {
            nar_hash, nar_size, ..
        } = self.0;
        let digits = nar_hash.base32();
        let digits = digits.get(..HASH_DIGITS).unwrap_or(&digits);
        let names = self.0.names();
        write!(f, "{names} signed the nar {digits} of {nar_size} bytes")
    }
}

/// As many digits of a hash tell two nars apart.
const HASH_DIGITS: usize = 12;
