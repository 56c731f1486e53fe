//! What a misspelled name was probably meant to be.

/// How similar two names are at least: one letter in four may differ.
const SIMILARITY_MIN: f64 = 0.7;

/// The name among `known` that is most similar to `name`; `None` when none is similar. The `prefix`
/// that all names share does not count.
#[must_use]
pub(crate) fn closest<'a>(
    name: &str,
    prefix: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let rest = name.trim_start_matches(prefix);
    known
        .map(|other| {
            (
                strsim::normalized_damerau_levenshtein(rest, other.trim_start_matches(prefix)),
                other,
            )
        })
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_similar_name_is_suggested() {
        let known = ["jobs", "substitute-urls", "store-dir"];
        let suggest = |name| closest(name, "", known.into_iter());
        assert_eq!(suggest("substitute_url"), Some("substitute-urls"));
        assert_eq!(suggest("job"), Some("jobs"));
        assert_eq!(suggest("timeout"), None);
    }
}
