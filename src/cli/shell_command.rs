//! Commands in messages, written so that a shell reads them as they are meant.

use std::path::Path;

use super::output::shown_path;

/// Adds `option` to `command` if it is set.
pub(super) fn add_flag(command: &mut String, option: &str, is_set: bool) {
    if is_set {
        command.push_str(&format!(" {option}"));
    }
}

/// Adds `option` with a path, if there is one.
pub(super) fn add_path(command: &mut String, option: &str, path: Option<&Path>) {
    add(command, option, path.map(shown_path).as_deref());
}

/// Adds `option` with `value`, if there is one.
pub(super) fn add(command: &mut String, option: &str, value: Option<&str>) {
    if let Some(value) = value {
        command.push_str(&format!(" {option} {}", quoted(value)));
    }
}

/// `word` as a shell reads it as one word.
#[must_use]
pub(crate) fn quoted(word: &str) -> String {
    if !word.is_empty() && word.chars().all(is_plain_in_shell) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn is_plain_in_shell(c: char) -> bool {
    c.is_alphanumeric() || "_@%+=:,./-".contains(c)
}

/// A longer command is not repeated: it has many items.
const COMMAND_BYTES_MAX: usize = 300;

/// The command with these `words` and `flag`, between backquotes; `None` if it is long.
#[must_use]
pub(crate) fn again_with_flag(words: &[String], flag: &str) -> Option<String> {
    let words: String = words
        .iter()
        .map(|word| format!(" {}", quoted(word)))
        .collect();
    let command = format!("`subst{words} {flag}`");
    (command.len() <= COMMAND_BYTES_MAX).then_some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, expected) in [
            ("a/b.c", "a/b.c"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$(x)", "'$(x)'"),
            ("`", "'`'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
