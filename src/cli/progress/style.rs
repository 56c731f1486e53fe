//! What a terminal can show, and pieces of lines within that.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar as _;

use crate::cli::text::width;

/// What a terminal can show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TerminalStyle {
    /// Colors are supported and wanted.
    pub(crate) has_color: bool,
    /// Characters beyond ASCII are supported.
    pub(crate) has_unicode: bool,
}

/// How a piece of a line stands out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Emphasis {
    /// Done.
    Done,
    /// Less important than the rest.
    Faint,
}

impl TerminalStyle {
    /// `text` with its emphasis, where the terminal has colors.
    pub(super) fn emphasized(self, text: &str, emphasis: Emphasis) -> String {
        if !self.has_color || text.is_empty() {
            return text.to_owned();
        }
        let code = match emphasis {
            Emphasis::Done => 32,
            Emphasis::Faint => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// `text`, cut to `columns` with a mark where it was longer.
    pub(super) fn cut(self, text: &str, columns: usize) -> Cow<'_, str> {
        if width(text) <= columns {
            return Cow::Borrowed(text);
        }
        if columns == 0 {
            return Cow::Borrowed("");
        }

        let mut left = columns - 1;
        let fitting = text.chars().take_while(|character| {
            let columns = character.width().unwrap_or(0);
            let fits = columns <= left;
            left = left.saturating_sub(columns);
            fits
        });
        let mut kept: String = fitting.collect();
        kept.push(if self.has_unicode { '…' } else { '~' });
        Cow::Owned(kept)
    }

    /// A bar of `columns`, filled up to `fraction`.
    pub(super) fn bar(self, fraction: f64, columns: usize) -> String {
        let (full, empty) = if self.has_unicode {
            ("█", "░")
        } else {
            ("#", "-")
        };
        let inner = columns.saturating_sub(2);
        let filled = (0..inner)
            .filter(|place| ((place + 1) as f64) <= fraction * inner as f64)
            .count();
        let done = self.emphasized(&full.repeat(filled), Emphasis::Done);
        let rest = self.emphasized(&empty.repeat(inner - filled), Emphasis::Faint);
        format!("[{done}{rest}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASCII: TerminalStyle = TerminalStyle {
        has_color: false,
        has_unicode: false,
    };
    const UNICODE: TerminalStyle = TerminalStyle {
        has_color: true,
        has_unicode: true,
    };

    #[test]
    fn text_is_cut_at_columns() {
        assert_eq!(ASCII.cut("hello", 5), "hello");
        assert_eq!(ASCII.cut("hello", 4), "hel~");
        assert_eq!(ASCII.cut("hello", 1), "~");
        assert_eq!(ASCII.cut("hello", 0), "");
        assert_eq!(UNICODE.cut("日本語", 4), "日…");
    }

    #[test]
    fn a_bar_is_as_wide_as_asked_for() {
        assert_eq!(ASCII.bar(0.0, 7), "[-----]");
        assert_eq!(ASCII.bar(0.5, 6), "[##--]");
        assert_eq!(ASCII.bar(1.0, 6), "[####]");
        assert_eq!(UNICODE.bar(0.5, 4), "[\x1b[32m█\x1b[0m\x1b[2m░\x1b[0m]");
    }
}
