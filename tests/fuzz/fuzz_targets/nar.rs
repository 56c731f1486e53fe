//! Any bytes as a nar: what is read to its end is written back byte for byte, so that no two
//! streams mean the same tree.

#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use subst::format::nar::{NarEvent, NarError, NarReader, NarWriter};
use subst::format::store_path::Dialect;

fn rewrite(nar: &[u8]) -> Result<Vec<u8>, NarError> {
    let mut reader = NarReader::new(nar, Dialect::Guix);
    let mut writer = NarWriter::new(Vec::new());
    while let Some(event) = reader.next()? {
        match event {
            NarEvent::Directory { name } => writer.directory(name.as_ref()),
            NarEvent::DirectoryEnd => writer.end_directory(),
            NarEvent::Symlink { name, target } => writer.symlink(name.as_ref(), &target),
            NarEvent::File { name, executable, size } => {
                let mut contents = Vec::new();
                reader.contents().read_to_end(&mut contents)?;
                writer.file(name.as_ref(), executable, size, &contents[..])
            }
        }
        .expect("what is read can be written");
    }
    Ok(writer.finish().expect("the reader has seen the end"))
}

fuzz_target!(|nar: &[u8]| {
    if let Ok(written) = rewrite(nar) {
        assert_eq!(written, nar);
    }
});
