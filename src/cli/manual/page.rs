//! A manual page that grows by sections, in roff with the `man` macros.

use roff::{Inline, Roff, bold, roman};

/// The date of all pages: when what they say was last changed.
const DATE: &str = "2026-11-27";

/// The longest line of the source that `mandoc -T lint` accepts, with 2 bytes for `\&`.
const SOURCE_COLUMNS: usize = 78;

/// A manual page.
pub(super) struct ManualPage {
    name: String,
    section: &'static str,
    roff: Roff,
}

impl ManualPage {
    /// A page with its title and its first section, NAME.
    pub(super) fn new(name: &str, section: &'static str, purpose: &str) -> Self {
        let source = concat!("subst ", env!("CARGO_PKG_VERSION"));
        let mut roff = Roff::new();
        let title = name.to_uppercase();
        roff.control("TH", [&title, section, DATE, source, "subst"]);
        // In narrow columns, adjusted lines have wide gaps, and formatters warn about lines of one word.
        roff.control("ad", ["l"]);

        let mut page = Self {
            name: name.to_owned(),
            section,
            roff,
        };
        page.section("NAME");
        page.text(&format!("{name} - {purpose}"));
        page
    }

    /// The name of its file.
    pub(super) fn file_name(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }

    /// What is in its file. Text is wrapped: `mandoc -T lint` reports longer lines.
    pub(super) fn to_roff(&self) -> String {
        let rendered = self.roff.render();
        let mut wrapped = String::with_capacity(rendered.len());
        let (mut previous, mut is_filled) = ("", true);
        for line in rendered.lines() {
            match line {
                ".nf" => is_filled = false,
                ".fi" => is_filled = true,
                _ => {}
            }
            // A term is one line, whatever its length.
            if is_filled && previous != ".TP" && !line.starts_with(['.', '\'']) {
                push_wrapped(&mut wrapped, line);
            } else {
                wrapped.push_str(line);
            }
            wrapped.push('\n');
            previous = line;
        }
        wrapped
    }

    /// Begins a section.
    pub(super) fn section(&mut self, heading: &str) {
        self.roff.control("SH", [heading.to_uppercase().as_str()]);
    }

    /// Adds a line of text; what is between backquotes is bold.
    pub(super) fn text(&mut self, text: &str) {
        self.roff.text(inlines(text));
    }

    /// Adds a line of parts.
    pub(super) fn line(&mut self, parts: Vec<Inline>) {
        self.roff.text(parts);
    }

    /// Begins a paragraph.
    pub(super) fn paragraph(&mut self) {
        self.roff.control("PP", []);
    }

    /// Begins an entry of a list of terms.
    pub(super) fn term(&mut self, term: Vec<Inline>) {
        self.roff.control("TP", []);
        self.roff.text(term);
    }

    /// Adds a line that is not filled, such as a command.
    pub(super) fn code(&mut self, line: &str) {
        self.roff.control("RS", ["4"]);
        self.roff.control("nf", []);
        for line in line.lines() {
            self.roff.text([bold(line)]);
        }
        self.roff.control("fi", []);
        self.roff.control("RE", []);
    }

    /// Adds the last section, with references to other pages.
    pub(super) fn see_also(&mut self, pages: &[String]) {
        self.section("SEE ALSO");
        let mut parts = Vec::new();
        for (index, page) in pages.iter().enumerate() {
            let (name, section) = page.rsplit_once('.').unwrap_or((page, "1"));
            let separator = if index + 1 < pages.len() { ", " } else { "" };
            parts.extend([bold(name), roman(format!("({section}){separator}"))]);
        }
        self.line(parts);
    }
}

/// Adds `line`, broken at blanks so that no part has more than `SOURCE_COLUMNS` bytes if a blank
/// allows it.
fn push_wrapped(out: &mut String, line: &str) {
    let mut bytes = 0;
    for (index, word) in line.split(' ').enumerate() {
        if index > 0 && bytes + 1 + word.len() > SOURCE_COLUMNS {
            out.push('\n');
            bytes = 0;
            // Otherwise it would be a request.
            if word.starts_with(['.', '\'']) {
                out.push_str("\\&");
            }
        } else if index > 0 {
            out.push(' ');
            bytes += 1;
        }
        out.push_str(word);
        bytes += word.len();
    }
}

/// Text in which what is between backquotes is bold, on one line.
pub(super) fn inlines(text: &str) -> Vec<Inline> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = text.split('`').enumerate();
    let parts = parts.filter(|(_, part)| !part.is_empty());
    parts
        .map(|(index, part)| match index % 2 {
            0 => roman(part),
            _ => bold(part),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_but_no_term_and_no_code() {
        let words = "word ".repeat(40);
        let mut page = ManualPage::new("subst-x", "1", "test");
        page.text(&format!("{words}.narinfo {words}.narinfo"));
        page.term(vec![bold(words.trim_end())]);
        page.code(words.trim_end());

        let source = page.to_roff();
        let long: Vec<&str> = source.lines().filter(|line| line.len() > 80).collect();
        let bold_line = format!("\\fB{}\\fR", words.trim_end());
        assert_eq!(long, [&bold_line, &bold_line]);

        // No word of the text is lost, and none became a request.
        let text = source.split(".TP").next().unwrap();
        assert_eq!(text.matches("word").count(), 80, "{text}");
        assert_eq!(text.matches(".narinfo").count(), 2, "{text}");
        assert!(!text.contains("\n.narinfo"), "{text}");
    }

    #[test]
    fn a_word_that_begins_with_a_period_is_no_request_after_a_break() {
        let mut wrapped = String::new();
        push_wrapped(&mut wrapped, &format!("{} .narinfo", "x".repeat(77)));
        assert_eq!(wrapped, format!("{}\n\\&.narinfo", "x".repeat(77)));
    }
}
