//! Text within the width of a terminal.

use crate::cli::output::printable;

/// The width that a report keeps to wherever it goes.
pub(super) const WIDTH: usize = 79;

/// A server's address without what all addresses have in common.
pub(super) fn short_name(url: &str) -> String {
    let name = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    printable(name.unwrap_or(url)).into_owned()
}

/// `text` broken at blanks so that lines stay within the width. A command between backquotes stays
/// in one piece, to be copied.
pub(super) fn wrapped(text: &str, first: &str, others: &str) -> Vec<String> {
    let mut lines = vec![first.to_owned()];
    let mut is_empty = true;
    let mut is_command = false;
    let is_blank = |c: char| {
        is_command ^= c == '`';
        c.is_whitespace() && !is_command
    };
    for word in text.split(is_blank).filter(|word| !word.is_empty()) {
        let width = lines.last().map_or(0, |line| line.chars().count());
        let length = word.chars().count();
        if !is_empty && width + 1 + length > WIDTH {
            // A word that fits nowhere gets as much room as there is.
            let is_long = others.len() + length > WIDTH;
            lines.push(
                others
                    .get(..LONG_WORD_INDENT)
                    .filter(|_| is_long)
                    .unwrap_or(others)
                    .into(),
            );
            is_empty = true;
        }
        if let Some(line) = lines.last_mut() {
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
        }
        is_empty = false;
    }
    lines
}

const LONG_WORD_INDENT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_blanks() {
        let text = "word ".repeat(40);
        let lines = wrapped(&text, "  hint: ", "        ");
        assert!(lines.len() > 2);
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        assert_eq!(lines.join(" ").matches("word").count(), 40);
    }

    #[test]
    fn a_command_is_not_broken() {
        let command = format!("`subst authorize --root '/a  b' {}`", "x".repeat(60));
        let lines = wrapped(
            &format!("{} {command} then", "word ".repeat(9)),
            "",
            "        ",
        );
        assert_eq!(lines[1], format!("        {command}"));
        assert_eq!(lines[2], "        then");
    }
}
