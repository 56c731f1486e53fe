//! JSON without raw control characters.
//!
//! JSON strings may contain the controls from U+007F on, and characters that reorder or hide text.
//! A terminal interprets them, so they are written as escapes, which mean the same.

use std::io::{self, Write};

use crate::format::escape::{is_plain, is_printable};

/// Writes JSON to another writer, with escapes for the characters that a terminal would interpret or
/// not show. They occur in strings only. The serializer has to write each string in pieces that are
/// UTF-8, as `serde_json` does; other pieces are written unchanged.
pub(super) struct EscapingWriter<W>(pub(super) W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        // Nearly every piece, and there are many: to look at characters doubles the time that the JSON
        // of a query takes.
        if is_plain(piece) {
            self.0.write_all(piece)?;
            return Ok(piece.len());
        }

        let text = str::from_utf8(piece).ok();
        match text.filter(|text| !text.chars().all(is_printable)) {
            Some(text) => self.0.write_all(escaped(text).as_bytes())?,
            None => self.0.write_all(piece)?,
        }
        Ok(piece.len())
    }

    fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        self.write(piece).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn escaped(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_printable(c) {
            json.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            json.push_str(&format!("\\u{unit:04x}"));
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_mean_the_same_characters() {
        let value = "a\n\u{1b}\u{7f}\u{9b}ä\u{202e}\u{e0041}𝄞";
        let mut json = Vec::new();
        serde_json::to_writer_pretty(EscapingWriter(&mut json), &[value]).unwrap();
        let json = String::from_utf8(json).unwrap();
        let expected = "[\n  \"a\\n\\u001b\\u007f\\u009bä\\u202e\\udb40\\udc41𝄞\"\n]";
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [value]);
    }
}
