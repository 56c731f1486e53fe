//! Untrusted text, made safe to print on a terminal and to quote in an error.

use std::borrow::Cow;

/// `text` with every character escaped that a terminal would interpret or not show. Line breaks
/// stay.
#[must_use]
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if is_plain(text.as_bytes()) || text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }

    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) {
            safe.push(c);
        } else {
            safe.extend(c.escape_unicode());
        }
    }

    Cow::Owned(safe)
}

/// The beginning of `text`, at most `max` bytes, so that an error cannot quote a megabyte.
pub(crate) fn clip(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// `text`, which a server may have made as long as it likes, cut to about `max` bytes.
pub(crate) fn bounded(text: String, max: usize) -> String {
    match clip(&text, max) {
        head if head.len() < text.len() => format!("{head}..."),
        _ => text,
    }
}

/// Whether `text` has nothing but printable ASCII characters and line breaks. Every byte is looked at, which
/// the compiler does for many at a time.
pub(crate) fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| {
        plain & matches!(byte, b' '..=b'~' | b'\n')
    })
}

/// Whether a terminal shows `c` as a character of its own, or it is a line break.
pub(crate) fn is_printable(c: char) -> bool {
    c == '\n' || !c.is_control() && !is_invisible(c)
}

/// Whether `c` is invisible, or reorders, hides or separates the characters next to it: bidirectional
/// controls, joiners, line separators, tags and the like.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon_is_escaped() {
        assert!(is_plain(b"plain ~\n") && !is_plain(b"\x7f") && !is_plain("ä".as_bytes()));
        assert_eq!(printable("plain ä\n"), "plain ä\n");
        assert_eq!(printable("\u{1b}[31mred\r"), "\\u{1b}[31mred\\u{d}");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }
}
