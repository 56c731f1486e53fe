//! NarReader and writer together, and a table of hostile nars.

use std::io::{self, BufRead, BufReader, Read};

use proptest::prelude::*;

use super::*;
use crate::format::store_path::Dialect;

/// A tree; the names of a directory's entries are strictly increasing.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    File { executable: bool, contents: Vec<u8> },
    Symlink(SymlinkTarget),
    Directory(Vec<(EntryName, Tree)>),
}

fn name(bytes: &[u8]) -> EntryName {
    EntryName::new(bytes).unwrap()
}

fn write(tree: &Tree) -> Vec<u8> {
    fn node(writer: &mut NarWriter<Vec<u8>>, name: Option<&EntryName>, tree: &Tree) {
        match tree {
            Tree::File {
                executable,
                contents,
            } => {
                writer
                    .file(name, *executable, contents.len() as u64, &contents[..])
                    .unwrap();
            }
            Tree::Symlink(target) => writer.symlink(name, target).unwrap(),
            Tree::Directory(entries) => {
                writer.directory(name).unwrap();
                entries
                    .iter()
                    .for_each(|(name, tree)| node(writer, Some(name), tree));
                writer.end_directory().unwrap();
            }
        }
    }
    let mut writer = NarWriter::new(Vec::new());
    node(&mut writer, None, tree);
    writer.finish().unwrap()
}

fn read(nar: impl BufRead) -> Result<Tree, NarError> {
    let mut reader = NarReader::new(nar, Dialect::Guix);
    let mut open: Vec<(Option<EntryName>, Vec<_>)> = Vec::new();
    let mut top = None;
    while let Some(event) = reader.next()? {
        let (name, tree) = match event {
            NarEvent::Directory { name } => {
                open.push((name, Vec::new()));
                continue;
            }
            NarEvent::DirectoryEnd => {
                let (name, entries) = open.pop().expect("an end has a beginning");
                (name, Tree::Directory(entries))
            }
            NarEvent::File {
                name,
                executable,
                size,
            } => {
                let mut contents = Vec::new();
                reader.contents().read_to_end(&mut contents)?;
                assert_eq!(contents.len() as u64, size);
                (
                    name,
                    Tree::File {
                        executable,
                        contents,
                    },
                )
            }
            NarEvent::Symlink { name, target } => (name, Tree::Symlink(target)),
        };
        match name {
            Some(name) => open
                .last_mut()
                .expect("it is an entry")
                .1
                .push((name, tree)),
            None => top = Some(tree),
        }
    }
    Ok(top.expect("a complete nar has a top node"))
}

fn strings(strings: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for string in strings {
        bytes.extend((string.len() as u64).to_le_bytes());
        bytes.extend(*string);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// A directory with one file for each name.
fn directory_of(names: &[&[u8]]) -> Vec<u8> {
    let mut all: Vec<&[u8]> = vec![b"nix-archive-1", b"(", b"type", b"directory"];
    for name in names {
        all.extend([
            b"entry" as &[u8],
            b"(",
            b"name",
            name,
            b"node",
            b"(",
            b"type",
        ]);
        all.extend([b"regular" as &[u8], b"contents", b"", b")", b")"]);
    }
    all.push(b")");
    strings(&all)
}

fn file(contents: &[u8]) -> Vec<u8> {
    strings(&[
        b"nix-archive-1",
        b"(",
        b"type",
        b"regular",
        b"contents",
        contents,
        b")",
    ])
}

fn symlink(target: &[u8]) -> Vec<u8> {
    strings(&[
        b"nix-archive-1",
        b"(",
        b"type",
        b"symlink",
        b"target",
        target,
        b")",
    ])
}

fn sample() -> Tree {
    let file = |contents: &[u8]| Tree::File {
        executable: false,
        contents: contents.into(),
    };
    let script = Tree::File {
        executable: true,
        contents: b"#!/bin/sh\n".into(),
    };
    let link = Tree::Symlink(SymlinkTarget::new(b"../lib").unwrap());
    let bin = vec![(name(b"hello"), script), (name(b"link"), link)];
    Tree::Directory(vec![
        (name(b"a b"), file(b"12345678")),
        (name(b"bin"), Tree::Directory(bin)),
        (name(b"empty"), file(b"")),
        (name(b"empty-dir"), Tree::Directory(Vec::new())),
        (name(b"\xff\x01"), file(&[7; 5000])),
    ])
}

#[test]
fn a_nar_is_the_bytes_that_the_grammar_says() {
    let tree = Tree::File {
        executable: true,
        contents: b"hello".into(),
    };
    let head: [&[u8]; 8] = [
        b"nix-archive-1",
        b"(",
        b"type",
        b"regular",
        b"executable",
        b"",
        b"contents",
        b"hello",
    ];
    assert_eq!(write(&tree), strings(&[&head[..], &[b")"]].concat()));
    let one = Tree::File {
        executable: false,
        contents: Vec::new(),
    };
    assert_eq!(
        write(&Tree::Directory(vec![(name(b"x"), one)])),
        directory_of(&[b"x"])
    );
    let link = Tree::Symlink(SymlinkTarget::new(b"/x").unwrap());
    assert_eq!(write(&link), symlink(b"/x"));
}

#[test]
fn samples_made_elsewhere_are_read_and_written_alike() {
    let tree = include_bytes!("../../../fixtures/nar/tree.nar");
    assert_eq!(read(&tree[..]).unwrap(), sample());
    assert_eq!(write(&sample()), tree);
    for nar in [
        &include_bytes!("../../../fixtures/nar/file.nar")[..],
        include_bytes!("../../../fixtures/nar/symlink.nar"),
    ] {
        assert_eq!(write(&read(nar).unwrap()), nar);
    }
}

#[test]
fn the_frame_of_a_single_file_is_its_nar() {
    for size in 0..20 {
        for executable in [false, true] {
            let contents = vec![b'x'; size];
            let framed = [
                &file_header(executable, size as u64),
                &contents,
                file_trailer(size as u64),
            ];
            assert_eq!(
                framed.concat(),
                write(&Tree::File {
                    executable,
                    contents
                })
            );
        }
    }
}

#[test]
fn reads_through_buffers_of_any_size() {
    let nar = write(&sample());
    for capacity in [1, 2, 3, 7, 8, 9, 63, 64, 4096] {
        assert_eq!(
            read(BufReader::with_capacity(capacity, &nar[..])).unwrap(),
            sample()
        );
    }
}

#[test]
fn contents_left_unread_are_skipped() {
    let nar = write(&sample());
    let mut reader = NarReader::new(&nar[..], Dialect::Guix);
    let mut events = 0;
    while let Some(event) = reader.next().unwrap() {
        if matches!(event, NarEvent::File { size: 5000, .. }) {
            reader.contents().read_exact(&mut [0; 100]).unwrap();
            reader.contents().read_exact(&mut [0; 10]).unwrap();
        }
        events += 1;
    }
    assert_eq!(events, 11);
    assert!(reader.next().unwrap().is_none(), "the end stays the end");
    assert!(reader.into_inner().is_empty());
}

#[test]
fn a_cut_nar_is_truncated_wherever_it_is_cut() {
    let nar = write(&sample());
    for length in 0..nar.len() {
        let error = read(&nar[..length]).unwrap_err();
        let NarError::Truncated { offset } = error else {
            panic!("{length}: {error}")
        };
        assert!(offset <= length as u64);
    }
}

#[test]
fn no_flipped_bit_reads_as_the_same_tree() {
    let nar = write(&sample());
    for bit in 0..nar.len() * 8 {
        let mut flipped = nar.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(tree) = read(&flipped[..]) {
            assert_ne!(tree, sample(), "bit {bit} has no meaning");
        }
    }
}

#[test]
fn nothing_may_follow_the_top_node() {
    for mut nar in [write(&sample()), file(b"x"), symlink(b"x")] {
        let end = nar.len() as u64;
        nar.push(0);
        let error = read(&nar[..]).unwrap_err();
        assert!(
            matches!(error, NarError::TrailingBytes { offset } if offset == end),
            "{error}"
        );
    }
}

fn patched(mut nar: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    nar[at..at + bytes.len()].copy_from_slice(bytes);
    nar
}

/// Each nar is refused, with an error that begins with these words.
fn assert_refused(cases: &[(Vec<u8>, &str)]) {
    for (nar, words) in cases {
        let error = read(&nar[..]).expect_err(words).to_string();
        assert!(error.starts_with(words), "not `{words}`: {error}");
    }
}

const HUGE: [u8; 8] = u64::MAX.to_le_bytes();

#[test]
fn hostile_structure_is_refused_in_words() {
    let nar =
        |rest: &[&[u8]]| strings(&[&[b"nix-archive-1" as &[u8], b"(", b"type"], rest].concat());
    assert_refused(&[
        (
            b"<html>not found</html>".to_vec(),
            "not a nar at byte 0: expected the head",
        ),
        (strings(&[b"nix-archive-2"]), "not a nar at byte 0"),
        (
            nar(&[b")"]),
            "not a nar at byte 56: expected regular, symlink or",
        ),
        (nar(&[b"device"]), "not a nar at byte 56"),
        (nar(&[b"regulas"]), "not a nar at byte 56"),
        (nar(&[&[b'r'; 300]]), "not a nar at byte 56"),
        (
            nar(&[b"regular", b"executable", b"x"]),
            "not a nar at byte 96: expected the contents",
        ),
        (
            nar(&[b"regular", b")"]),
            "not a nar at byte 72: expected executable or contents",
        ),
        (
            nar(&[b"regular", b"executable", b"", b"executable"]),
            "not a nar at byte 96",
        ),
        (
            nar(&[b"directory", b"name"]),
            "not a nar at byte 80: expected an entry or",
        ),
        (
            nar(&[b"directory", b"entry", b"(", b")"]),
            "not a nar at byte 96: expected the name",
        ),
        (
            nar(&[b"directory", b"entry", b"(", b"name", b"a", b")"]),
            "not a nar at byte 144",
        ),
        (
            patched(file(b"x"), 88, &HUGE),
            "the nar ends early, at byte",
        ),
        (
            patched(file(b"x"), 97, b"\x01"),
            "padding that is not zero at byte 97",
        ),
        (patched(file(b"x"), 71, b"\x01"), "not a nar at byte 56"),
        (patched(file(b"x"), 23, b"\x01"), "not a nar at byte 0"),
    ]);
}

#[test]
fn hostile_names_are_refused_in_words() {
    let names = directory_of;
    assert_refused(&[
        (names(&[b""]), "`` cannot name an entry, at byte 128"),
        (names(&[b"."]), "`.` cannot name"),
        (names(&[b".."]), "`..` cannot name"),
        (names(&[b"/"]), "`/` cannot name"),
        (names(&[b"a/b"]), "`a/b` cannot name"),
        (names(&[b"a\0b"]), r"`a\x00b` cannot name"),
        (names(&[b"\x1b/"]), r"`\x1b/` cannot name"),
        (
            names(&[&[b'n'; 256]]),
            "an entry name of 256 bytes is too long, at byte 128",
        ),
        (
            patched(names(&[b"a"]), 128, &HUGE),
            "an entry name of 18446744073709551615 bytes",
        ),
        (
            patched(names(&[b"a"]), 143, b"\x01"),
            "padding that is not zero at byte 137",
        ),
        (
            names(&[b"a", b"a"]),
            "entry `a` is out of order or repeated, at byte",
        ),
        (names(&[b"b", b"a"]), "entry `a` is out of order"),
        (names(&[b"ab", b"a"]), "entry `a` is out of order"),
        (names(&[b"\xc3", b"z"]), "entry `z` is out of order"),
        (symlink(b""), "`` cannot be a symlink target, at byte 88"),
        (symlink(b"a\0"), r"`a\x00` cannot be a symlink target"),
        (
            symlink(&[b't'; 4096]),
            "a symlink target of 4096 bytes is too long, at byte 88",
        ),
        (
            patched(symlink(b"t"), 88, &HUGE),
            "a symlink target of 1844",
        ),
    ]);
}

#[test]
fn the_longest_names_and_targets_are_read() {
    assert!(read(&directory_of(&[&[b'n'; MAX_NAME_BYTES]])[..]).is_ok());
    assert!(read(&symlink(&[b't'; MAX_TARGET_BYTES])[..]).is_ok());
    assert!(read(&directory_of(&[b"...", b"..a", b"a", b"a ", b"ab", b"b", b"\xff"])[..]).is_ok());
}

/// `directories` directories inside each other, the innermost with a file if `has_file`.
fn nested(directories: usize, has_file: bool) -> Vec<u8> {
    let into = strings(&[b"entry", b"(", b"name", b"d", b"node", b"(", b"type"]);
    let mut nar = strings(&[b"nix-archive-1", b"(", b"type", b"directory"]);
    for _ in 1..directories {
        nar.extend(&into);
        nar.extend(strings(&[b"directory"]));
    }

    if has_file {
        nar.extend(&into);
        nar.extend(strings(&[b"regular", b"contents", b"", b")", b")"]));
    }
    (1..directories).for_each(|_| nar.extend(strings(&[b")", b")"])));
    nar.extend(strings(&[b")"]));
    nar
}

/// Real Nix 2.34 restores a file below 63 directories and refuses one below 64.
#[test]
fn the_number_of_levels_is_limited_and_takes_no_stack() {
    for dialect in [Dialect::Guix, Dialect::Nix] {
        let limit = levels_max(dialect);
        for (directories, has_file) in [(limit, false), (limit - 1, true)] {
            let nar = nested(directories, has_file);
            let mut reader = NarReader::new(&nar[..], dialect);
            let mut events = 0;
            while reader.next().unwrap().is_some() {
                events += 1;
            }
            assert_eq!(events, 2 * directories + usize::from(has_file));
        }
        for (directories, has_file) in [(limit + 1, false), (limit, true), (10 * limit, true)] {
            let nar = nested(directories, has_file);
            let mut reader = NarReader::new(&nar[..], dialect);
            let error = loop {
                match reader.next() {
                    Ok(event) => assert!(event.is_some()),
                    Err(error) => break error,
                }
            };
            let is_right =
                matches!(error, NarError::TooDeep { levels_max, .. } if levels_max == limit);
            assert!(is_right, "{error}");
        }
    }
}

#[test]
fn a_reader_that_failed_stays_failed() {
    let nar = directory_of(&[b"..", b"a"]);
    let mut reader = NarReader::new(&nar[..], Dialect::Guix);
    reader.next().unwrap();
    reader.next().unwrap_err();
    assert!(matches!(reader.next(), Err(NarError::ReaderFailed)));
}

#[test]
fn the_cause_of_a_failed_stream_is_kept() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let nar = file(&[b'x'; 100]);
    let broken = BufReader::new(nar[..120].chain(Broken));
    let error = read(broken).unwrap_err();
    assert!(
        matches!(&error, NarError::Io(cause) if cause.kind() == io::ErrorKind::ConnectionReset)
    );
    assert_eq!(
        io::Error::from(error).kind(),
        io::ErrorKind::ConnectionReset
    );
    let cut = io::Error::from(read(&nar[..120]).unwrap_err());
    assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    assert!(matches!(
        NarError::from(cut),
        NarError::Truncated { offset: 120 }
    ));
}

#[test]
fn interrupted_streams_go_on() {
    struct Interrupted<'a>(&'a [u8], bool);
    impl Read for Interrupted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                self.0.read(buffer)
            }
        }
    }
    let nar = write(&sample());
    let stream = BufReader::with_capacity(5, Interrupted(&nar, false));
    assert_eq!(read(stream).unwrap(), sample());
}

#[test]
fn the_writer_refuses_what_is_no_nar() {
    let (a, b) = (name(b"a"), name(b"b"));
    let empty: &[u8] = &[];
    let mut writer = NarWriter::new(Vec::new());
    assert!(writer.end_directory().is_err());
    assert!(
        writer.file(Some(&a), false, 0, empty).is_err(),
        "the top node has no name"
    );
    writer.directory(None).unwrap();
    assert!(
        writer.file(None, false, 0, empty).is_err(),
        "an entry has a name"
    );
    writer.file(Some(&b), false, 0, empty).unwrap();
    assert!(
        writer.file(Some(&a), false, 0, empty).is_err(),
        "out of order"
    );
    assert!(writer.finish().is_err(), "the directory is open");
    assert!(
        NarWriter::new(Vec::new()).finish().is_err(),
        "there is nothing"
    );
    assert!(
        NarWriter::new(Vec::new())
            .file(None, false, 1, empty)
            .is_err(),
        "too short"
    );
    assert!(
        NarWriter::new(Vec::new())
            .file(None, false, 0, &b"x"[..])
            .is_err(),
        "too long"
    );
}

fn trees() -> impl Strategy<Value = Tree> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    let file = (any::<bool>(), bytes(40)).prop_map(|(executable, contents)| Tree::File {
        executable,
        contents,
    });
    let symlink = bytes(20).prop_filter_map("a target", |target| {
        SymlinkTarget::new(&target).map(Tree::Symlink)
    });
    prop_oneof![file, symlink].prop_recursive(4, 40, 6, move |inner| {
        let names = prop_oneof!["[a-c]{1,2}".prop_map(String::into_bytes), bytes(12)]
            .prop_filter_map("a name", |bytes| EntryName::new(&bytes));
        prop::collection::btree_map(names, inner, 0..6)
            .prop_map(|entries| Tree::Directory(entries.into_iter().collect()))
    })
}

proptest! {
    #[test]
    fn read_inverts_write(tree in trees(), capacity in 1..100usize) {
        let nar = write(&tree);
        let read = read(BufReader::with_capacity(capacity, &nar[..])).unwrap();
        prop_assert_eq!(write(&read), nar);
        prop_assert_eq!(read, tree);
    }

    #[test]
    fn what_is_read_at_all_is_written_back_equal(
        tree in trees(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let mut nar = write(&tree);
        let at = at.index(nar.len());
        nar[at] = byte;
        if let Ok(tree) = read(&nar[..]) {
            prop_assert_eq!(write(&tree), nar);
        }
    }
}
