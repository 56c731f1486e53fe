//! The outputs of a derivation, which the database lists beside a valid `.drv` item.
//!
//! `Derive([("out","/gnu/store/...","",""),...],...`: only the list of outputs is read. Guix and
//! Nix need those rows to tell which derivation an item came from.

use std::fs::File;
use std::io::Read as _;

use super::db::Outputs;
use super::error::{StoreError, on};
use super::layout::Layout;
use crate::format::store_path::{StoreDir, StorePath};

/// The outputs of the derivation `path`, which lies in the store already.
pub(super) fn outputs(layout: &Layout, path: &StorePath) -> Result<Outputs, StoreError> {
    let file = layout.item(path);
    let mut text = Vec::new();
    File::open(&file)
        .and_then(|opened| opened.take(MAX_BYTES).read_to_end(&mut text))
        .map_err(on(&file, |path, source| StoreError::Read { path, source }))?;
    std::str::from_utf8(&text)
        .ok()
        .and_then(|text| parse_outputs(text, layout.store_dir()))
        .ok_or(StoreError::Derivation(file))
}

fn parse_outputs(text: &str, store_dir: &StoreDir) -> Option<Outputs> {
    let mut rest = text.strip_prefix("Derive([")?;
    let mut outputs = Vec::new();
    loop {
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
            Some(more) => more,
            None => return rest.starts_with(']').then_some(outputs),
        };
    }
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
        let outputs = parse_outputs(&text, &dir).unwrap();
        let names: Vec<_> = outputs
            .iter()
            .map(|(name, path)| (name.as_str(), path.base()))
            .collect();
        assert_eq!(
            names,
            [("doc", format!("{OUT}-doc").as_str()), ("out", OUT)]
        );
    }

    #[test]
    fn refuses_what_is_no_derivation() {
        let dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        for text in [
            "",
            "Derive([",
            "Derive([]",
            r#"Derive([("out","/gnu/store/x","","")"#,
            r#"Derive([("out","/etc/passwd","","")],"#,
            r#"Derive([("out","","")],"#,
        ] {
            assert_eq!(parse_outputs(text, &dir), None, "{text}");
        }
    }
}
