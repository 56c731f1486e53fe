//! The outputs of a derivation, which the database lists beside a valid `.drv` item.
//!
//! `Derive([("out","/gnu/store/...","",""),...],...`: only the list of outputs is read. Guix and
//! Nix need those rows to tell which derivation an item came from.

use std::fs::File;
use std::io::Read as _;

use super::error::{StoreError, on};
use super::item_rows::Outputs;
use super::layout::Layout;
use crate::format::store_path::{StoreDir, StorePath};

/// The outputs of the derivation `path`, which lies in the store already.
pub(super) fn outputs(layout: &Layout, path: &StorePath) -> Result<Outputs, StoreError> {
    let file = layout.item(path);
    let mut text = Vec::new();
    File::open(&file)
        .and_then(|opened| opened.take(MAX_BYTES).read_to_end(&mut text))
        .map_err(on(&file, |path, source| StoreError::Read { path, source }))?;
    parse_outputs(&text, layout.store_dir()).ok_or(StoreError::Derivation(file))
}

fn parse_outputs(text: &[u8], store_dir: &StoreDir) -> Option<Outputs> {
    // Names of outputs and paths have no bracket; what comes after them may be in any encoding.
    let list = text.strip_prefix(b"Derive([")?;
    let end = list.iter().position(|&byte| byte == b']')?;
    let mut rest = std::str::from_utf8(&list[..end]).ok()?;
    let mut outputs = Vec::new();
    while !rest.is_empty() {
        rest = rest.strip_prefix('(')?;
        let mut fields = [""; 4];
        for (index, field) in fields.iter_mut().enumerate() {
            if index > 0 {
                rest = rest.strip_prefix(',')?;
            }
            // Output names, paths and hashes have no character that would be escaped.
            (*field, rest) = rest.strip_prefix('"')?.split_once('"')?;
        }
        rest = rest.strip_prefix(')')?;
        let [name, path, ..] = fields;
        // Nix leaves the path out where it follows from the content only after building.
        if !path.is_empty() {
            outputs.push((name.to_owned(), store_dir.parse_path(path).ok()?.to_path()));
        }
        rest = match rest.strip_prefix(',') {
            Some(more) if !more.is_empty() => more,
            None if rest.is_empty() => rest,
            _ => return None,
        };
    }
    Some(outputs)
}

/// Real ones have some hundred kilobytes; the list of outputs comes first.
const MAX_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: &str = "0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0";

    #[test]
    fn reads_the_list_of_outputs() {
        let dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        let text = format!(
            r#"Derive([("doc","/gnu/store/{OUT}-doc","",""),("out","/gnu/store/{OUT}","r:sha256","00")],[],[],"x86_64-linux","/bin/sh",[],[("a","\"b")])"#
        );
        let latin1 = [text.as_bytes(), b"\xe9"].concat();
        let outputs = parse_outputs(&latin1, &dir).unwrap();
        let names: Vec<_> = outputs
            .iter()
            .map(|(name, path)| (name.as_str(), path.base()))
            .collect();
        assert_eq!(
            names,
            [("doc", format!("{OUT}-doc").as_str()), ("out", OUT)]
        );
        assert_eq!(parse_outputs(b"Derive([],[],[])", &dir), Some(Vec::new()));
    }

    #[test]
    fn refuses_what_is_no_derivation() {
        let dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        for text in [
            "",
            "Derive([",
            "Derive([,],",
            &format!(r#"Derive([("out","/gnu/store/{OUT}","",""),],"#),
            r#"Derive([("out","/gnu/store/x","","")"#,
            r#"Derive([("out","/etc/passwd","","")],"#,
            r#"Derive([("out","","")],"#,
        ] {
            assert_eq!(parse_outputs(text.as_bytes(), &dir), None, "{text}");
        }
    }
}
