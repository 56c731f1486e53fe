//! Text in columns: widths as a terminal shows them, padding, and lines within a width.

use textwrap::core::Word;
use textwrap::{Options, WordSeparator, WordSplitter};
use unicode_width::UnicodeWidthStr as _;

/// The width that reports keep to where they do not go to a narrower terminal.
pub(crate) const REPORT_WIDTH: usize = 79;
/// The width that reports need in any case: their indentations and a short word.
const REPORT_WIDTH_MIN: usize = 16;
/// The indentation of a word that is too long for a line of its own.
const LONG_WORD_INDENT: usize = 8;

/// The columns that `text` takes.
#[must_use]
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The width of the widest of `texts`; 0 without any.
pub(crate) fn widest<'a>(texts: impl IntoIterator<Item = &'a str>) -> usize {
    texts.into_iter().map(width).max().unwrap_or(0)
}

/// `text` with blanks behind it up to `columns`.
#[must_use]
pub(crate) fn padded(text: &str, columns: usize) -> String {
    let blanks = columns.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(blanks))
}

/// The width of a report for a terminal of `terminal_width` columns, or for no terminal.
#[must_use]
pub(crate) fn report_width(terminal_width: Option<usize>) -> usize {
    terminal_width.map_or(REPORT_WIDTH, |columns| {
        columns.clamp(REPORT_WIDTH_MIN, REPORT_WIDTH)
    })
}

/// `text` in lines of at most `columns`, broken at blanks. The first line begins with
/// `first`, the others with `others`. A command between backquotes stays in one piece, to be copied;
/// a piece that fits nowhere gets as much room as there is.
#[must_use]
pub(crate) fn wrapped(text: &str, columns: usize, first: &str, others: &str) -> Vec<String> {
    let options = Options::new(columns)
        .initial_indent(first)
        .subsequent_indent(others)
        .word_separator(WordSeparator::Custom(words_and_commands))
        .word_splitter(WordSplitter::NoHyphenation)
        .break_words(false);

    textwrap::wrap(text.trim(), options)
        .into_iter()
        .map(|line| match line.strip_prefix(others) {
            Some(piece) if width(&line) > columns && others.len() > LONG_WORD_INDENT => {
                format!("{}{piece}", " ".repeat(LONG_WORD_INDENT))
            }
            _ => line.into_owned(),
        })
        .collect()
}

/// The words of `line`, each with the blanks behind it, so that together they are the line again: the
/// lines are cut out of it by their lengths. What is between two backquotes belongs to one word.
fn words_and_commands(line: &str) -> Box<dyn Iterator<Item = Word<'_>> + '_> {
    let mut rest = line;
    Box::new(std::iter::from_fn(move || {
        let (word, others) = rest.split_at(first_word_len(rest));
        rest = others;
        (!word.is_empty()).then(|| Word::from(word))
    }))
}

/// The bytes of the first word of `text` and of the blanks behind it.
fn first_word_len(text: &str) -> usize {
    let (mut is_command, mut is_behind) = (false, false);
    let next_word = text.char_indices().find(|(_, c)| {
        is_command ^= *c == '`';
        let is_blank = *c == ' ' && !is_command;
        let begins_next = is_behind && !is_blank;
        is_behind |= is_blank;
        begins_next
    });
    next_word.map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_at_blanks() {
        let text = "word ".repeat(40);
        let lines = wrapped(&text, REPORT_WIDTH, "  hint: ", "        ");
        assert!(lines.len() > 2);
        assert!(
            lines.iter().all(|line| line.len() <= REPORT_WIDTH),
            "{lines:?}"
        );
        assert_eq!(lines.join(" ").matches("word").count(), 40);
    }

    #[test]
    fn a_command_is_not_broken() {
        let command = format!("`subst authorize --root '/a  b' {}`", "x".repeat(60));
        let text = format!("{} {command} then", "word ".repeat(9));
        let lines = wrapped(&text, REPORT_WIDTH, "", "        ");
        assert_eq!(lines[1], format!("        {command}"));
        assert_eq!(lines[2], "        then");
        let lines = wrapped(&text, REPORT_WIDTH, "", &" ".repeat(30));
        assert_eq!(lines[1], format!("        {command}"));
    }

    #[test]
    fn wide_characters_count_as_terminals_show_them() {
        assert_eq!((width("日本"), width("e\u{301}")), (4, 1));
        assert_eq!(padded("日本", 5), "日本 ");
        let lines = wrapped(&"日本語 ".repeat(20), REPORT_WIDTH, "", "");
        assert!(
            lines.iter().all(|line| width(line) <= REPORT_WIDTH),
            "{lines:?}"
        );
    }
}
