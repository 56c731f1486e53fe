//! The cached answer of one lookup, and when it expires.
//!
//! Time is always an argument, in Unix seconds. An entry counts from when it was answered until it
//! expires; one that was answered in the future (the clock was set back) does not count, because
//! its expiry means nothing then.

/// How long answers count, in seconds: where the server does not say, and at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TtlPolicy {
    /// The server has the item.
    pub(crate) positive_secs: u64,
    /// It has it, but does not know the size of the download: it is about to know more.
    pub(crate) without_file_size_secs: u64,
    /// It does not have the item.
    pub(crate) negative_secs: u64,
    /// It is preparing the item.
    pub(crate) preparing_secs: u64,
    /// Its response was an error, or there was none.
    pub(crate) transient_secs: u64,
    /// Its `nix-cache-info`.
    pub(crate) cache_info_secs: u64,
    /// No positive answer, and no `nix-cache-info`, counts longer, whatever the server says:
    /// any machine on the network path may have forged it.
    pub(crate) longest_positive_secs: u64,
    /// No negative answer counts longer.
    pub(crate) longest_negative_secs: u64,
    /// No `nix-cache-info` for another store counts longer: it excludes the server.
    pub(crate) longest_other_store_secs: u64,
    /// The item is not said to be in preparation longer.
    pub(crate) longest_preparing_secs: u64,
    /// No error counts longer, such as that of an overloaded server.
    pub(crate) longest_transient_secs: u64,
}

impl Default for TtlPolicy {
    /// The times of the stock client, where it has them.
    fn default() -> Self {
        Self {
            positive_secs: 36 * 3600,
            without_file_size_secs: 300,
            negative_secs: 120,
            preparing_secs: 60,
            transient_secs: 60,
            cache_info_secs: 7 * DAY_SECS,
            longest_positive_secs: 7 * DAY_SECS,
            longest_negative_secs: 6 * HOUR_SECS,
            longest_other_store_secs: 600,
            longest_preparing_secs: 300,
            longest_transient_secs: 3600,
        }
    }
}

/// What kind of answer a time to live is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// A narinfo.
    Positive,
    /// A narinfo without the size of the download.
    PositiveWithoutFileSize,
    /// The server does not have it.
    Negative,
    /// The server is preparing it.
    Preparing,
    /// No answer: an error of the server or of the network.
    Transient,
    /// A server's `nix-cache-info`.
    CacheInfo,
    /// A server's `nix-cache-info` that names another store.
    OtherStore,
}

/// Who decided how long an answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TtlSource {
    /// The server, with `max-age` or `Retry-After`.
    Server,
    /// The policy's default, since the server did not say.
    Default,
}

impl TtlPolicy {
    /// How long an answer of this kind counts when the server said `max_age` seconds, or nothing.
    #[must_use]
    pub(crate) fn ttl_secs(&self, kind: AnswerKind, max_age: Option<u64>) -> (u64, TtlSource) {
        let (default, longest) = match kind {
            AnswerKind::Positive => (self.positive_secs, self.longest_positive_secs),
            AnswerKind::PositiveWithoutFileSize => {
                (self.without_file_size_secs, self.longest_positive_secs)
            }
            AnswerKind::Negative => (self.negative_secs, self.longest_negative_secs),
            AnswerKind::Preparing => (self.preparing_secs, self.longest_preparing_secs),
            AnswerKind::Transient => (self.transient_secs, self.longest_transient_secs),
            AnswerKind::CacheInfo => (self.cache_info_secs, self.longest_positive_secs),
            AnswerKind::OtherStore => {
                (self.longest_other_store_secs, self.longest_other_store_secs)
            }
        };
        match max_age {
            Some(secs) => (secs.min(longest), TtlSource::Server),
            None => (default, TtlSource::Default),
        }
    }

    /// The entry for `answer`, received at `now`, when the server said `max_age`.
    #[must_use]
    pub(crate) fn entry(
        &self,
        answer: CachedAnswer,
        kind: AnswerKind,
        max_age: Option<u64>,
        now: u64,
    ) -> CacheEntry {
        let (ttl, ttl_source) = self.ttl_secs(kind, max_age);
        CacheEntry {
            answer,
            answered_at: now,
            expires_at: now.saturating_add(ttl),
            ttl_source,
        }
    }
}

/// An answer as it is cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CachedAnswer {
    /// The server has the item.
    Positive {
        /// The narinfo, byte for byte.
        text: Box<str>,
        /// The authorized key that was found to have signed exactly this text. Only used
        /// where no other user could have written it; see [`LookupCache`](super::LookupCache).
        key_id: Option<Box<str>>,
    },
    /// The server has a narinfo that no authorized key has signed.
    Refused {
        /// What is kept of it, as the caller wrote it. The first line is the narinfo's own
        /// `StorePath` field.
        facts: Box<str>,
    },
    /// The server does not have the item.
    Negative {
        /// The HTTP status; 0 where the server is a directory.
        status: u16,
    },
    /// The server is preparing the item.
    Preparing {
        /// The HTTP status.
        status: u16,
    },
    /// No definite answer.
    Transient {
        /// What failed.
        reason: Box<str>,
    },
}

/// One answer of one server about one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheEntry {
    /// What was answered.
    pub(crate) answer: CachedAnswer,
    /// When, in Unix seconds.
    pub(crate) answered_at: u64,
    /// From when on it does not count any more, in Unix seconds.
    pub(crate) expires_at: u64,
    /// Who decided that.
    pub(crate) ttl_source: TtlSource,
}

impl CacheEntry {
    /// Whether the answer counts at `now`.
    #[must_use]
    pub(crate) fn is_fresh(&self, now: u64) -> bool {
        counts(self.answered_at, self.expires_at, now)
    }

    /// How long ago it was answered, in seconds.
    #[must_use]
    pub(crate) fn age_secs(&self, now: u64) -> u64 {
        now.saturating_sub(self.answered_at)
    }

    /// For how many seconds more it counts; 0 when it does not.
    #[must_use]
    pub(crate) fn expires_in_secs(&self, now: u64) -> u64 {
        if self.is_fresh(now) {
            self.expires_at - now
        } else {
            0
        }
    }
}

/// Whether what was learned at `learned_at` counts at `now`.
pub(super) fn counts(learned_at: u64, expires_at: u64, now: u64) -> bool {
    learned_at <= now.saturating_add(CLOCK_SLACK_SECS) && now < expires_at
}

const HOUR_SECS: u64 = 3600;
const DAY_SECS: u64 = 24 * HOUR_SECS;

/// Clocks are corrected by small steps all the time.
const CLOCK_SLACK_SECS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn negative() -> CachedAnswer {
        CachedAnswer::Negative { status: 404 }
    }

    #[test]
    fn the_server_decides_within_limits() {
        let policy = TtlPolicy::default();
        assert_eq!(
            policy.ttl_secs(AnswerKind::Positive, None),
            (129_600, TtlSource::Default)
        );
        assert_eq!(
            policy.ttl_secs(AnswerKind::Positive, Some(7)),
            (7, TtlSource::Server)
        );
        assert_eq!(
            policy.ttl_secs(AnswerKind::Positive, Some(u64::MAX)).0,
            7 * DAY_SECS
        );
        assert_eq!(
            policy.ttl_secs(AnswerKind::PositiveWithoutFileSize, None).0,
            300
        );
        assert_eq!(policy.ttl_secs(AnswerKind::Negative, None).0, 120);
        assert_eq!(
            policy.ttl_secs(AnswerKind::Preparing, Some(86_400)),
            (300, TtlSource::Server)
        );
        assert_eq!(policy.ttl_secs(AnswerKind::Transient, None).0, 60);
    }

    #[test]
    fn no_answer_counts_longer_than_its_kind_allows() {
        let policy = TtlPolicy::default();
        for (kind, longest) in [
            (AnswerKind::Positive, 7 * DAY_SECS),
            (AnswerKind::PositiveWithoutFileSize, 7 * DAY_SECS),
            (AnswerKind::Negative, 6 * HOUR_SECS),
            (AnswerKind::Preparing, 300),
            (AnswerKind::Transient, HOUR_SECS),
            (AnswerKind::CacheInfo, 7 * DAY_SECS),
            (AnswerKind::OtherStore, 600),
        ] {
            for max_age in [10 * longest, 365 * DAY_SECS, u64::MAX] {
                assert_eq!(policy.ttl_secs(kind, Some(max_age)).0, longest, "{kind:?}");
            }
            assert!(policy.ttl_secs(kind, None).0 <= longest, "{kind:?}");
            assert_eq!(policy.ttl_secs(kind, Some(5)).0, 5, "{kind:?}");
        }
    }

    #[test]
    fn an_answer_that_may_not_be_kept_never_counts() {
        let entry = TtlPolicy::default().entry(negative(), AnswerKind::Negative, Some(0), 1000);
        assert!(!entry.is_fresh(1000));
        assert_eq!(entry.expires_in_secs(1000), 0);
    }

    #[test]
    fn an_answer_from_the_future_does_not_count() {
        let entry = TtlPolicy::default().entry(negative(), AnswerKind::Negative, None, 1_000_000);
        assert!(entry.is_fresh(1_000_000 - CLOCK_SLACK_SECS));
        assert!(!entry.is_fresh(1_000_000 - CLOCK_SLACK_SECS - 1));
    }

    proptest! {
        #[test]
        fn what_has_expired_stays_expired(asked: u64, max_age: Option<u64>, now: u64, later: u64) {
            let entry = TtlPolicy::default().entry(negative(), AnswerKind::Positive, max_age, asked);
            let (now, later) = (now.min(later), now.max(later));
            if now >= asked && !entry.is_fresh(now) {
                prop_assert!(!entry.is_fresh(later));
            }
            prop_assert_eq!(entry.is_fresh(now), entry.expires_in_secs(now) > 0);
        }
    }
}
