//! Patterns for names of items: `*` stands for any text, `?` for any character.

use crate::format::store_path::{HASH_PART_LEN, StorePathRef};

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern(Box<str>);

impl NamePattern {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Whether it matches `item`: all of its name, with the hyphen in front of it or without. A pattern that
    /// begins with a whole hash is compared with the hash as well, and no other is: `r*` must not match one
    /// item of 32 by chance.
    pub(crate) fn matches_item(&self, item: StorePathRef<'_>) -> bool {
        let literal = self.0.find(['*', '?']).unwrap_or(self.0.len());
        if literal > HASH_PART_LEN {
            return self.matches(item.base());
        }
        self.matches(item.name()) || self.matches(&format!("-{}", item.name()))
    }

    /// Whether all of `name` has this form. Takes at most the product of both lengths.
    fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut position) = (0, 0);
        // Behind the last `*`, and how much of the name it stands for.
        let mut star = None;
        while position < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    at += 1;
                    star = Some((at, position));
                }
                Some(&byte) if byte == b'?' || byte == name[position] => {
                    at += 1;
                    position += 1;
                }
                _ => {
                    let Some((behind, end)) = star else {
                        return false;
                    };
                    star = Some((behind, end + 1));
                    (at, position) = (behind, end + 1);
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by its definition.
    fn matches(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, _) => name.is_empty(),
            (Some((b'*', rest)), None) => matches(rest, name),
            (Some((b'*', rest)), Some((_, shorter))) => {
                matches(rest, name) || matches(pattern, shorter)
            }
            (Some((b'?', rest)), Some((_, shorter))) => matches(rest, shorter),
            (Some((byte, rest)), Some((first, shorter))) => byte == first && matches(rest, shorter),
            (Some(_), None) => false,
        }
    }

    proptest::proptest! {
        #[test]
        fn a_pattern_is_what_its_definition_says(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let expected = matches(pattern.as_bytes(), name.as_bytes());
            assert_eq!(NamePattern::new(&pattern).matches(&name), expected);
        }
    }

    #[test]
    fn a_long_name_takes_little_time() {
        let pattern = NamePattern::new(&format!("{}b", "*a".repeat(60)));
        assert!(!pattern.matches(&"a".repeat(211)));
    }
}
