//! The parser, in two passes: lines are sorted into the slots of the field table, then the slots
//! are read. So the rules for repeated fields are in one place for all fields.

use memchr::memchr;

use super::download::Download;
use super::error::NarInfoError;
use super::fields::{Field, Occurrence, Scalars};
use super::info::NarInfo;
use super::limits::{
    DOWNLOADS_MAX, MAX_BYTES, METHOD_BYTES_MAX, QUOTED_BYTES_MAX, SIGNATURES_MAX, WORD_BYTES_MAX,
};
use super::quirks::Quirks;
use super::span::Span;
use crate::format::compression::{Compression, UnknownCompression};
use crate::format::escape::clip;
use crate::format::hash::{FileHash, HashForm, NarHash};
use crate::format::store_path::{Dialect, StoreDir, StorePathRef, parse_list};

/// Nix writes this in place of an unknown derivation.
const UNKNOWN_DERIVER: &str = "unknown-deriver";

impl NarInfo {
    /// Parses the narinfo `text` for the store in `store_dir`, which determines the dialect.
    ///
    /// # Errors
    /// See [`NarInfoError`].
    pub fn parse(text: impl Into<Box<str>>, store_dir: &StoreDir) -> Result<Self, NarInfoError> {
        let text = text.into();
        if text.len() > MAX_BYTES {
            return Err(NarInfoError::TooLong(text.len()));
        }

        let mut parser = NarInfoParser {
            text: &text,
            dialect: store_dir.dialect(),
            scalars: Scalars::default(),
            downloads: Vec::with_capacity(1),
            has_more_downloads: false,
            nix_signatures: Vec::with_capacity(1),
            quirks: Quirks::default(),
        };
        parser.sort_lines()?;
        let Description {
            store_path,
            nar_hash,
            nar_hash_form,
            nar_size,
            references_len,
        } = parser.description(store_dir)?;
        let deriver = parser.deriver();
        let downloads = parser.read_downloads();

        let NarInfoParser {
            dialect,
            scalars,
            nix_signatures,
            quirks,
            ..
        } = parser;
        Ok(Self {
            text,
            dialect,
            scalars,
            store_path,
            nar_hash,
            nar_hash_form,
            nar_size,
            references_len,
            deriver,
            downloads,
            nix_signatures,
            quirks,
        })
    }
}

/// The spans of the fields, from the first pass.
struct NarInfoParser<'t> {
    text: &'t str,
    dialect: Dialect,
    scalars: Scalars,
    downloads: Vec<DownloadSpans>,
    /// Whether the text has more downloads than are considered.
    has_more_downloads: bool,
    nix_signatures: Vec<Span>,
    quirks: Quirks,
}

/// The spans of one download: `URL`, `Compression`, `FileHash`, `FileSize`.
type DownloadSpans = [Option<Span>; Field::COUNT - Field::SCALARS - 1];

const fn download_slot(field: Field) -> usize {
    field as usize - Field::SCALARS
}

struct Description {
    store_path: Span,
    nar_hash: NarHash,
    nar_hash_form: HashForm,
    nar_size: u64,
    references_len: u32,
}

impl NarInfoParser<'_> {
    fn sort_lines(&mut self) -> Result<(), NarInfoError> {
        let bytes = self.text.as_bytes();
        let (mut start, mut number) = (0, 0);
        while start < bytes.len() {
            number += 1;
            let next = match memchr(b'\n', &bytes[start..]) {
                Some(length) => start + length + 1,
                None => {
                    self.quirks.insert(Quirks::NO_FINAL_NEWLINE);
                    bytes.len() + 1
                }
            };
            let mut end = next - 1;

            // All of them, or the fields would be others once they are printed and parsed again.
            while end > start && bytes[end - 1] == b'\r' {
                self.quirks.insert(Quirks::CRLF);
                end -= 1;
            }
            self.sort_line(start, end, number)?;
            start = next;
        }

        Ok(())
    }

    fn sort_line(&mut self, start: usize, end: usize, number: usize) -> Result<(), NarInfoError> {
        let line = &self.text[start..end];
        if line.is_empty() {
            self.quirks.insert(Quirks::EMPTY_LINE);
            return Ok(());
        }

        let colon = memchr(b':', line.as_bytes()).filter(|&colon| is_key(&line[..colon]));
        let Some(colon) = colon else {
            let text = clip(line, QUOTED_BYTES_MAX).to_owned();
            return Err(NarInfoError::Line { number, text });
        };
        let Some(field) = Field::named(&line[..colon]) else {
            self.quirks.insert(Quirks::UNKNOWN_FIELD);
            return Ok(());
        };

        let value = line[colon + 1..].trim_start_matches([' ', '\t']);
        self.sort_field(field, Span::new(end - value.len(), end))
    }

    fn sort_field(&mut self, field: Field, value: Span) -> Result<(), NarInfoError> {
        let occurrence = field.occurrence();
        let slot = match occurrence {
            Occurrence::Many => {
                if self.nix_signatures.len() < SIGNATURES_MAX {
                    self.nix_signatures.push(value);
                }
                return Ok(());
            }
            Occurrence::Once | Occurrence::FirstCounts => &mut self.scalars[field as usize],
            Occurrence::PerDownload => match self.slot_of_download(field) {
                Some(slot) => slot,
                None => return Ok(()),
            },
        };
        if slot.is_none() {
            *slot = Some(value);
        } else if occurrence == Occurrence::Once && self.dialect == Dialect::Nix {
            return Err(NarInfoError::Duplicate(field.name()));
        } else {
            self.quirks.insert(Quirks::DUPLICATE_FIELD);
        }

        Ok(())
    }

    /// The slot of `field` in the last download. A `URL` begins a new download unless the last one
    /// has none yet. `None` behind the last download that is considered.
    fn slot_of_download(&mut self, field: Field) -> Option<&mut Option<Span>> {
        let is_taken = self
            .downloads
            .last()
            .is_none_or(|last| last[download_slot(Field::Url)].is_some());
        if self.downloads.is_empty() || (field == Field::Url && is_taken) {
            self.has_more_downloads = self.downloads.len() == DOWNLOADS_MAX;
            if !self.has_more_downloads {
                self.downloads.push(DownloadSpans::default());
            }
        }
        let last = self
            .downloads
            .last_mut()
            .filter(|_| !self.has_more_downloads)?;

        Some(&mut last[download_slot(field)])
    }

    /// Reads the fields that a signature covers.
    fn description(&mut self, store_dir: &StoreDir) -> Result<Description, NarInfoError> {
        let span = self.required(Field::StorePath)?;
        let full = clip(
            span.of(self.text),
            store_dir.as_str().len() + WORD_BYTES_MAX,
        );
        let path = store_dir
            .parse_path(full)
            .map_err(NarInfoError::StorePath)?;
        let store_path = Span::new(span.end() - path.base().len(), span.end());
        let hash = clip(self.required(Field::NarHash)?.of(self.text), WORD_BYTES_MAX);
        let (nar_hash, nar_hash_form) = NarHash::parse(hash).map_err(NarInfoError::NarHash)?;
        self.note_form(nar_hash_form);
        let size = self.required(Field::NarSize)?.of(self.text);
        let nar_size = parse_size(size)
            .ok_or_else(|| NarInfoError::NarSize(clip(size, WORD_BYTES_MAX).to_owned()))?;
        let references_len = self.check_references()?;

        Ok(Description {
            store_path,
            nar_hash,
            nar_hash_form,
            nar_size,
            references_len,
        })
    }

    fn required(&self, field: Field) -> Result<Span, NarInfoError> {
        self.scalars[field as usize].ok_or(NarInfoError::Missing(field.name()))
    }

    fn check_references(&mut self) -> Result<u32, NarInfoError> {
        let Some(span) = self.scalars[Field::References as usize] else {
            self.quirks.insert(Quirks::NO_REFERENCES_LINE);
            return Ok(0);
        };

        let (mut previous, mut count) = ("", 0);
        for path in parse_list(span.of(self.text), self.dialect) {
            let base = path.map_err(NarInfoError::Reference)?.base();
            if base <= previous {
                self.quirks.insert(Quirks::UNSORTED_REFERENCES);
            }
            previous = base;
            count += 1;
        }

        Ok(count)
    }

    /// A deriver that cannot be read is ignored, as nothing depends on it.
    fn deriver(&mut self) -> Option<Span> {
        let span = self.scalars[Field::Deriver as usize]?;
        let name = match span.of(self.text) {
            "" => return None,
            UNKNOWN_DERIVER => {
                self.quirks.insert(Quirks::UNKNOWN_DERIVER);
                return None;
            }
            name => clip(name, WORD_BYTES_MAX),
        };

        let path = StorePathRef::parse(name).and_then(|path| self.dialect.check_name(path));
        if path.is_err() {
            self.quirks.insert(Quirks::UNREADABLE_DERIVER);
        }
        path.ok().map(|_| span)
    }

    /// Reads the downloads that have a `URL`.
    fn read_downloads(&mut self) -> Vec<Download> {
        let mut downloads = Vec::with_capacity(self.downloads.len());
        for spans in std::mem::take(&mut self.downloads) {
            let Some(url) = spans[download_slot(Field::Url)] else {
                continue;
            };

            let [method, hash, size] = [Field::Compression, Field::FileHash, Field::FileSize]
                .map(|field| spans[download_slot(field)].map(|span| span.of(self.text)));
            let compression = self.compression(method);
            let file_size = size.map(parse_size);
            let file_hash = hash.map(|text| FileHash::parse(text).ok());

            if file_size == Some(None) || file_hash == Some(None) {
                self.quirks.insert(Quirks::UNREADABLE_FILE_FIELD);
            }
            let (file_hash, file_hash_form) = match file_hash.flatten() {
                Some((hash, form)) => (Some(hash), form),
                None => (None, HashForm::Base32),
            };
            self.note_form(file_hash_form);
            let file_size = file_size.flatten();
            downloads.push(Download {
                compression,
                file_size,
                file_hash,
                file_hash_form,
                url,
            });
        }

        downloads
    }

    /// Nix uses bzip2 if no method is named. Guix pairs methods with URLs, so that it never uses a
    /// URL without one.
    fn compression(&mut self, name: Option<&str>) -> Result<Compression, UnknownCompression> {
        let name = name.unwrap_or("");
        if name.is_empty() && self.dialect == Dialect::Nix {
            self.quirks.insert(Quirks::DEFAULTED_COMPRESSION);
            return Ok(Compression::Bzip2);
        }
        Compression::parse(clip(name, METHOD_BYTES_MAX))
    }

    fn note_form(&mut self, form: HashForm) {
        if form != HashForm::Base32 {
            self.quirks.insert(Quirks::HASH_FORM);
        }
    }
}

/// Whether `key` is a letter or `%` followed by visible ASCII characters. HTML pages, and the
/// comments and continuation lines of recutils, have no such keys and are refused.
fn is_key(key: &str) -> bool {
    let begins_well = key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '%');
    begins_well && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `text` as a number of bytes: decimal digits only, without the sign that `u64` would take.
fn parse_size(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}
