//! A manual page that grows by sections, in roff with the `man` macros.

use roff::{Inline, Roff, bold, roman};

/// The date of all pages: when what they say was last changed.
const DATE: &str = "2026-11-27";

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

    /// What is in its file.
    pub(super) fn to_roff(&self) -> String {
        self.roff.render()
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
