//! In what two nars differ: entry by entry, with the first differing byte of each file.
//!
//! Both are read once, side by side, and to their ends. Since names increase in a nar, memory is
//! bounded without holding either tree: a piece of a file of each, and what was found, of which at
//! most [`ENTRIES_MAX`] entries with [`PATHS_BYTES_MAX`] bytes of names are kept; the others are
//! counted. An entry that only one has stands for everything below it.

use std::cmp::Ordering;
use std::io::{self, BufRead, Read};

use super::error::NarError;
use super::event::NarEvent;
use super::name::EntryName;
use super::read::NarReader;

/// Differing entries that are kept.
const ENTRIES_MAX: usize = 1000;

/// Bytes of their names that are kept.
const PATHS_BYTES_MAX: usize = 1 << 20;

/// Bytes of a file that are compared at a time.
const PIECE_BYTES: usize = 64 << 10;

/// In what two nars differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NarDifferences {
    /// The differing entries, in the order of a nar.
    pub(crate) entries: Vec<EntryDifference>,
    /// How many more there are.
    pub(crate) omitted: u64,
}

/// In what an entry differs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EntryDifference {
    /// The names that lead to it, each behind a slash; empty for the top node.
    pub(crate) path: Vec<u8>,
    /// In what.
    pub(crate) kind: DifferenceKind,
}

/// In what an entry differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DifferenceKind {
    /// Only the first nar has it.
    OnlyFirst,
    /// Only the second nar has it.
    OnlySecond,
    /// One is a file, the other a directory or a symlink.
    Type,
    /// One file may be executed, the other not.
    Executable,
    /// Symlinks with different targets.
    Target,
    /// Files with different contents.
    Contents {
        /// The first byte that differs, or that only one of them has; counted from 0.
        offset: u64,
    },
}

/// The nar that could not be read to its end, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UncomparableNar {
    /// The first one.
    #[error("reading the first nar")]
    First(#[source] NarError),
    /// The second one.
    #[error("reading the second nar")]
    Second(#[source] NarError),
}

/// Compares two nars.
///
/// # Errors
/// One of them is no nar, or cannot be read to its end.
pub(crate) fn differences<A: BufRead, B: BufRead>(
    first: NarReader<A>,
    second: NarReader<B>,
) -> Result<NarDifferences, UncomparableNar> {
    let mut comparison = Comparison {
        first: Side::new(first),
        second: Side::new(second),
        path: Vec::new(),
        starts: Vec::new(),
        found: NarDifferences::default(),
        path_bytes: 0,
        buffers: [vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]],
    };
    comparison.advance_both()?;

    let mut depth = usize::from(comparison.compare_nodes()?);
    while depth > 0 {
        match comparison.compare_entries()? {
            EntryStep::Directory => depth += 1,
            EntryStep::Entry => {}
            EntryStep::End => depth -= 1,
        }
    }

    Ok(comparison.found)
}

/// One of the two nars, and its next event.
struct Side<R> {
    reader: NarReader<R>,
    next: Option<NarEvent>,
}

impl<R: BufRead> Side<R> {
    fn new(reader: NarReader<R>) -> Self {
        Self { reader, next: None }
    }

    fn advance(&mut self) -> Result<(), NarError> {
        self.next = self.reader.next()?;
        Ok(())
    }

    /// Goes behind the node that begins here.
    fn skip_node(&mut self) -> Result<(), NarError> {
        let mut depth = 0_usize;
        loop {
            match &self.next {
                Some(NarEvent::Directory { .. }) => depth += 1,
                Some(NarEvent::DirectoryEnd) => depth = depth.saturating_sub(1),
                Some(_) | None => {}
            }
            self.advance()?;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// The name of the entry that begins here; `None` at the end of a directory.
    fn name(&self) -> Option<EntryName> {
        match self.next.as_ref()? {
            NarEvent::Directory { name }
            | NarEvent::File { name, .. }
            | NarEvent::Symlink { name, .. } => name.clone(),
            NarEvent::DirectoryEnd => None,
        }
    }
}

/// What a step in a directory was about.
enum EntryStep {
    /// A directory that both have was entered.
    Directory,
    /// An entry was compared.
    Entry,
    /// The directory ended.
    End,
}

struct Comparison<A, B> {
    first: Side<A>,
    second: Side<B>,
    /// The names of the open directories, each behind a slash.
    path: Vec<u8>,
    /// Where in `path` each of them begins.
    starts: Vec<usize>,
    found: NarDifferences,
    /// Bytes of the names in `found`.
    path_bytes: usize,
    buffers: [Vec<u8>; 2],
}

impl<A: BufRead, B: BufRead> Comparison<A, B> {
    /// Compares what comes next in a directory that both have.
    fn compare_entries(&mut self) -> Result<EntryStep, UncomparableNar> {
        let (first, second) = (self.first.name(), self.second.name());
        let order = match (&first, &second) {
            (None, None) => {
                let start = self.starts.pop().unwrap_or(0);
                self.path.truncate(start);
                self.advance_both()?;
                return Ok(EntryStep::End);
            }
            (Some(first), Some(second)) => first.cmp(second),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };

        let start = self.path.len();
        let name = if order.is_gt() { second } else { first };
        self.path.push(b'/');
        self.path
            .extend_from_slice(name.as_ref().map_or(&b""[..], EntryName::as_bytes));
        match order {
            Ordering::Less => {
                self.note(DifferenceKind::OnlyFirst);
                self.first.skip_node().map_err(UncomparableNar::First)?;
            }
            Ordering::Greater => {
                self.note(DifferenceKind::OnlySecond);
                self.second.skip_node().map_err(UncomparableNar::Second)?;
            }
            Ordering::Equal => {
                if self.compare_nodes()? {
                    self.starts.push(start);
                    return Ok(EntryStep::Directory);
                }
            }
        }

        self.path.truncate(start);
        Ok(EntryStep::Entry)
    }

    /// Compares the nodes that begin here, and goes behind them; or into them, and returns `true`,
    /// if both are directories.
    fn compare_nodes(&mut self) -> Result<bool, UncomparableNar> {
        match (&self.first.next, &self.second.next) {
            (Some(NarEvent::Directory { .. }), Some(NarEvent::Directory { .. })) => {
                self.advance_both()?;
                return Ok(true);
            }
            (
                Some(NarEvent::File { executable: a, .. }),
                Some(NarEvent::File { executable: b, .. }),
            ) => {
                if a != b {
                    self.note(DifferenceKind::Executable);
                }
                if let Some(offset) = self.first_differing_byte()? {
                    self.note(DifferenceKind::Contents { offset });
                }
            }
            (
                Some(NarEvent::Symlink { target: a, .. }),
                Some(NarEvent::Symlink { target: b, .. }),
            ) => {
                if a != b {
                    self.note(DifferenceKind::Target);
                }
            }
            _ => self.note(DifferenceKind::Type),
        }

        self.first.skip_node().map_err(UncomparableNar::First)?;
        self.second.skip_node().map_err(UncomparableNar::Second)?;
        Ok(false)
    }

    /// Compares the contents of the files that begin here, up to the first difference.
    fn first_differing_byte(&mut self) -> Result<Option<u64>, UncomparableNar> {
        let mut first = self.first.reader.contents();
        let mut second = self.second.reader.contents();
        let [a, b] = &mut self.buffers;
        let mut offset = 0;
        loop {
            let first_bytes =
                fill(&mut first, a).map_err(|error| UncomparableNar::First(error.into()))?;
            let second_bytes =
                fill(&mut second, b).map_err(|error| UncomparableNar::Second(error.into()))?;

            let common = first_bytes.min(second_bytes);
            if a[..common] != b[..common] {
                let pairs = a.iter().zip(b.iter());
                let equal = pairs.take_while(|(a, b)| a == b).count();
                return Ok(Some(offset + equal as u64));
            }
            offset += common as u64;
            if first_bytes != second_bytes {
                return Ok(Some(offset));
            }
            if common == 0 {
                return Ok(None);
            }
        }
    }

    /// Notes a difference of the entry that `path` names.
    fn note(&mut self, kind: DifferenceKind) {
        let path_bytes = self.path_bytes + self.path.len();
        if self.found.entries.len() == ENTRIES_MAX || path_bytes > PATHS_BYTES_MAX {
            self.found.omitted += 1;
            return;
        }
        self.path_bytes = path_bytes;
        self.found.entries.push(EntryDifference {
            path: self.path.clone(),
            kind,
        });
    }

    fn advance_both(&mut self) -> Result<(), UncomparableNar> {
        self.first.advance().map_err(UncomparableNar::First)?;
        self.second.advance().map_err(UncomparableNar::Second)
    }
}

/// Reads until `buffer` is full or the input ends; the number of bytes.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::{NarWriter, SymlinkTarget};
    use super::*;
    use crate::format::store_path::Dialect;

    /// A nar from a description: `d NAME`, `. ` ends a directory, `f NAME CONTENTS`, `x NAME
    /// CONTENTS`, `l NAME TARGET`; the top is a directory.
    fn nar(lines: &[&str]) -> Vec<u8> {
        let mut writer = NarWriter::new(Vec::new());
        writer.directory(None).unwrap();
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let kind = words.next().unwrap();
            let name = EntryName::new(words.next().unwrap_or("-").as_bytes()).unwrap();
            let rest = words.next().unwrap_or("").as_bytes();
            match kind {
                "d" => writer.directory(Some(&name)).unwrap(),
                "." => writer.end_directory().unwrap(),
                "l" => {
                    let target = SymlinkTarget::new(rest).unwrap();
                    writer.symlink(Some(&name), &target).unwrap();
                }
                _ => {
                    let size = rest.len() as u64;
                    writer.file(Some(&name), kind == "x", size, rest).unwrap();
                }
            }
        }
        writer.end_directory().unwrap();
        writer.finish().unwrap()
    }

    fn compare(first: &[u8], second: &[u8]) -> Result<NarDifferences, UncomparableNar> {
        differences(
            NarReader::new(first, Dialect::Guix),
            NarReader::new(second, Dialect::Guix),
        )
    }

    fn shown(first: &[&str], second: &[&str]) -> String {
        let found = compare(&nar(first), &nar(second)).unwrap();
        assert_eq!(found.omitted, 0);
        let mut text = String::new();
        for EntryDifference { path, kind } in found.entries {
            writeln!(text, "{} {kind:?}", path.escape_ascii()).unwrap();
        }
        text
    }

    #[test]
    fn equal_nars_have_no_differences() {
        let lines = ["d a", "f b text", "l c b", ".", "x d run", "f e "];
        assert_eq!(shown(&lines, &lines), "");
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let first = [
            "d a",
            "f only 1",
            "d sub",
            "f x 1",
            ".",
            ".",
            "f b same",
            "f c text",
            "l d to",
            "f e type",
            "f f 12345",
            "f g 1",
        ];
        let second = [
            "d a",
            ".",
            "f b same",
            "x c tent",
            "l d from",
            "d e",
            "f below 1",
            ".",
            "f f 123",
            "f g 1",
            "d h",
            "f many 1",
            ".",
        ];
        let expected = "/a/only OnlyFirst\n/a/sub OnlyFirst\n/c Executable\n\
                        /c Contents { offset: 2 }\n/d Target\n/e Type\n\
                        /f Contents { offset: 3 }\n/h OnlySecond\n";
        assert_eq!(shown(&first, &second), expected);
    }

    #[test]
    fn the_first_differing_byte_is_found_behind_the_first_piece() {
        let file = |bytes: &[u8]| {
            let mut writer = NarWriter::new(Vec::new());
            writer.file(None, false, bytes.len() as u64, bytes).unwrap();
            writer.finish().unwrap()
        };
        let mut bytes = vec![7; 3 * PIECE_BYTES + 5];
        let first = file(&bytes);
        for at in [0, PIECE_BYTES - 1, PIECE_BYTES, bytes.len() - 1] {
            bytes[at] = 8;
            let found = compare(&first, &file(&bytes)).unwrap();
            let kind = DifferenceKind::Contents { offset: at as u64 };
            let path = Vec::new();
            assert_eq!(found.entries, [EntryDifference { path, kind }]);
            bytes[at] = 7;
        }
        let shorter = compare(&first, &file(&bytes[..2 * PIECE_BYTES])).unwrap();
        let offset = 2 * PIECE_BYTES as u64;
        assert_eq!(shorter.entries[0].kind, DifferenceKind::Contents { offset });
    }

    #[test]
    fn what_is_kept_of_many_differences_is_bounded() {
        let names: Vec<String> = (0..3000).map(|number| format!("f {number:05} x")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = compare(&nar(&names), &nar(&[])).unwrap();
        assert_eq!((found.entries.len(), found.omitted), (ENTRIES_MAX, 2000));

        let long = "n".repeat(250);
        let deep: Vec<String> = (0..40).map(|_| format!("d {long}")).collect();
        let many = (0..900).map(|number| format!("f {number:05} x"));
        let ends = (0..40).map(|_| ".".to_owned());
        let lines: Vec<String> = deep.iter().cloned().chain(many).chain(ends).collect();
        let first: Vec<&str> = lines.iter().map(String::as_str).collect();
        let empty: Vec<&str> = first
            .iter()
            .copied()
            .filter(|line| !line.starts_with('f'))
            .collect();
        let found = compare(&nar(&first), &nar(&empty)).unwrap();
        let bytes: usize = found.entries.iter().map(|entry| entry.path.len()).sum();
        assert!(bytes <= PATHS_BYTES_MAX, "{bytes}");
        assert_eq!(found.entries.len() as u64 + found.omitted, 900);
    }

    #[test]
    fn the_nar_that_cannot_be_read_is_named() {
        let whole = nar(&["d a", "f b text", "."]);
        let cut = &whole[..whole.len() - 40];
        let first = compare(cut, &whole).unwrap_err();
        assert!(matches!(first, UncomparableNar::First(_)), "{first:?}");
        let second = compare(&whole, cut).unwrap_err();
        assert!(matches!(second, UncomparableNar::Second(_)), "{second:?}");
        let trailing = [&whole[..], b"x"].concat();
        assert!(compare(&whole, &trailing).is_err());
    }
}
