//! The text of a narinfo of a mirror: the server's, byte for byte, but for URLs that have to change
//! and signatures that other servers add. Pure.
//!
//! In Guix's dialect nothing above the first `Signature:` changes, since that is signed as it is; in
//! Nix's dialect the lines of a download are not signed, wherever they are.

use crate::format::narinfo::NarInfo;
use crate::format::store_path::Dialect;

/// What becomes of a download that a narinfo names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DownloadEdit {
    /// Its lines stay as they are.
    Keep,
    /// It gets another URL.
    Move(String),
    /// Its lines are removed.
    Remove,
}

/// Where the lines begin that may be changed.
pub(super) fn unsigned_start(narinfo: &NarInfo, dialect: Dialect) -> usize {
    match dialect {
        Dialect::Guix => narinfo.signed_text().map_or(usize::MAX, str::len),
        Dialect::Nix => 0,
    }
}

/// The text of `narinfo` with an edit for each of its downloads, in their order, and `signatures` more:
/// values of `Signature` or `Sig`. Downloads behind those that have an edit are removed.
pub(super) fn edited(
    narinfo: &NarInfo,
    dialect: Dialect,
    edits: &[DownloadEdit],
    signatures: &[String],
) -> String {
    let text = narinfo.text();
    let unsigned = unsigned_start(narinfo, dialect);
    let mut groups = DownloadGroups::default();
    let (mut edited, mut start) = (String::with_capacity(text.len()), 0);

    for line in text.split_inclusive('\n') {
        let group = groups.of_line(line);
        let edit = group.map(|group| edits.get(group).unwrap_or(&DownloadEdit::Remove));
        match edit {
            Some(DownloadEdit::Remove) if start >= unsigned => {}
            Some(DownloadEdit::Move(url)) if start >= unsigned && line.starts_with("URL:") => {
                edited.push_str(&format!("URL: {url}\n"));
            }
            _ => edited.push_str(line),
        }

        if dialect == Dialect::Guix && start == unsigned {
            add_lines(&mut edited, "Signature", signatures);
        }
        start += line.len();
    }
    if dialect == Dialect::Nix {
        add_lines(&mut edited, "Sig", signatures);
    }
    edited
}

fn add_lines(text: &mut String, name: &str, values: &[String]) {
    if !values.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for value in values {
        text.push_str(&format!("{name}: {value}\n"));
    }
}

/// Which download a line belongs to: as the parser sees it, a `URL` begins the next one unless the
/// last one has none yet.
#[derive(Default)]
struct DownloadGroups {
    count: usize,
    has_url: bool,
}

impl DownloadGroups {
    fn of_line(&mut self, line: &str) -> Option<usize> {
        let (name, _) = line.split_once(':')?;
        match name {
            "URL" => {
                if self.count == 0 || self.has_url {
                    self.count += 1;
                }
                self.has_url = true;
            }
            "Compression" | "FileHash" | "FileSize" => {
                if self.count == 0 {
                    self.count = 1;
                }
            }
            _ => return None,
        }
        Some(self.count - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::DownloadEdit::{Keep, Move, Remove};
    use super::*;
    use crate::format::store_path::StoreDir;

    const GUIX: &str = "StorePath: /gnu/store/00000000000000000000000000000000-x\n\
        NarHash: sha256:0000000000000000000000000000000000000000000000000000\nNarSize: 1\nReferences: \n\
        Signature: 1;h;x\n\
        URL: nar/lzip/x\nCompression: lzip\nFileSize: 1\n\
        URL: https://h/x\nCompression: zstd\nFileSize: 2\n";
    const NIX: &str = "StorePath: /nix/store/00000000000000000000000000000000-x\n\
        URL: nar/x?y\nCompression: xz\nFileSize: 1\n\
        NarHash: sha256:0000000000000000000000000000000000000000000000000000\nNarSize: 1\n\
        References: \nSig: a:b";

    fn edit(text: &str, store: &str, edits: &[DownloadEdit], signatures: &[&str]) -> String {
        let store_dir = StoreDir::parse(store).unwrap();
        let narinfo = NarInfo::parse(text, &store_dir).unwrap();
        let signatures: Vec<String> = signatures.iter().map(|it| (*it).to_owned()).collect();
        edited(&narinfo, store_dir.dialect(), edits, &signatures)
    }

    #[test]
    fn without_a_reason_every_byte_stays() {
        assert_eq!(edit(GUIX, StoreDir::GUIX, &[Keep, Keep], &[]), GUIX);
        assert_eq!(edit(NIX, StoreDir::NIX, &[Keep], &[]), NIX);
        let crlf = NIX.replace('\n', "\r\n");
        assert_eq!(edit(&crlf, StoreDir::NIX, &[Keep], &[]), crlf);
    }

    #[test]
    fn downloads_are_moved_and_removed_in_the_unsigned_part() {
        let expected = GUIX
            .replace("URL: nar/lzip/x\nCompression: lzip\nFileSize: 1\n", "")
            .replace("https://h/x", "nar/y");
        let found = edit(GUIX, StoreDir::GUIX, &[Remove, Move("nar/y".into())], &[]);
        assert_eq!(found, expected);

        let found = edit(NIX, StoreDir::NIX, &[Move("nar/y".into())], &[]);
        assert_eq!(found, NIX.replace("nar/x?y", "nar/y"));
    }

    #[test]
    fn what_is_signed_stays_whatever_is_edited() {
        let above = GUIX.replacen("NarHash", "URL: nar/above\nCompression: gzip\nNarHash", 1);
        let found = edit(&above, StoreDir::GUIX, &[Remove, Remove, Remove], &[]);
        assert_eq!(found, above[..above.find("URL: nar/lzip").unwrap()]);
    }

    #[test]
    fn further_signatures_stand_behind_the_first() {
        let found = edit(GUIX, StoreDir::GUIX, &[Keep, Keep], &["1;i;y"]);
        assert_eq!(found, GUIX.replace("1;h;x\n", "1;h;x\nSignature: 1;i;y\n"));
        let found = edit(NIX, StoreDir::NIX, &[Keep], &["c:d"]);
        assert_eq!(found, format!("{NIX}\nSig: c:d\n"));
    }
}
