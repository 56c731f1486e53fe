//! The part of a narinfo that is kept once its signature has been verified.
//!
//! A run keeps the narinfos of tens of thousands of items to its end. Most of the text has no use
//! after the verification, and a server may have added any amount of unsigned text.

use std::fmt::Write as _;

use super::fields::{Field, Scalars};
use super::info::NarInfo;
use super::limits::{
    GUIX_SIGNATURE_BYTES_MAX, SIGNATURES_KEPT_MAX, VALUE_BYTES_MAX, WHOLE_BYTES_MAX,
};
use super::offer::NarOffer;
use super::span::Span;
use crate::format::store_path::Dialect;

impl NarInfo {
    /// The narinfo without its `Signature`, downloads, unknown fields and blanks.
    /// [`text`](Self::text) is not the server's any more, so a narinfo that is to be verified again
    /// has to be kept elsewhere.
    #[must_use]
    pub(crate) fn abridged(&self) -> Self {
        let mut text = String::new();
        let mut scalars = Scalars::default();
        scalars[Field::StorePath as usize] = self
            .scalar(Field::StorePath)
            .map(|path| add(&mut text, path));
        let store_path = Span::new(text.len() - self.store_path.len(), text.len());

        let start = text.len();
        for reference in self.references() {
            text.push_str(if text.len() > start { " " } else { "" });
            text.push_str(reference.base());
        }
        let references = Span::new(start, text.len());
        scalars[Field::References as usize] = self.scalar(Field::References).map(|_| references);

        for field in [Field::System, Field::Ca] {
            let value = self
                .scalar(field)
                .filter(|value| value.len() <= VALUE_BYTES_MAX);
            scalars[field as usize] = value.map(|value| add(&mut text, value));
        }

        let deriver = self.deriver().map(|deriver| add(&mut text, deriver.base()));
        scalars[Field::Deriver as usize] = deriver;

        let signatures = self
            .nix_signatures()
            .filter(|value| value.len() <= VALUE_BYTES_MAX);
        let nix_signatures = signatures
            .take(SIGNATURES_KEPT_MAX)
            .map(|value| add(&mut text, value))
            .collect();

        Self {
            text: text.into(),
            scalars,
            store_path,
            deriver,
            downloads: Vec::new(),
            nix_signatures,
            ..*self
        }
    }

    /// The part of the text that is needed to verify it again and to download the nar: the signed
    /// text, the signature, and the downloads that are considered.
    #[must_use]
    pub(crate) fn kept_text(&self) -> Box<str> {
        if self.text.len() <= WHOLE_BYTES_MAX {
            return self.text.clone();
        }

        let mut text = match (self.dialect, self.scalars[Field::Signature as usize]) {
            (Dialect::Guix, Some(signature)) => format!("{}\n", &self.text[..signature.end()]),
            _ => self.abridged().to_string(),
        };
        let further = self.guix_signatures().skip(1);
        for value in further.filter(|value| value.len() <= GUIX_SIGNATURE_BYTES_MAX) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "Signature: {value}");
        }

        let offer = NarOffer::of(self);
        for download in offer.downloads() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "URL: {}", offer.download_url(download));
            if let Ok(method) = download.compression {
                let _ = writeln!(text, "Compression: {method}");
            }
            if let Some(size) = download.file_size {
                let _ = writeln!(text, "FileSize: {size}");
            }
        }

        text.into()
    }
}

/// Appends `value` to `text`, and returns its span.
fn add(text: &mut String, value: &str) -> Span {
    let start = text.len();
    text.push_str(value);
    Span::new(start, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store_path::StoreDir;

    const TEXT: &str = include_str!("../../../fixtures/signatures/vector-a.narinfo");

    #[test]
    fn the_description_stays() {
        let dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        let signature = TEXT
            .lines()
            .find(|line| line.starts_with("Signature: "))
            .unwrap();
        let rest = TEXT.replace(&format!("{signature}\n"), "");
        // The signature in front of everything, in the middle, and behind everything.
        for text in [
            TEXT.to_owned(),
            format!("{signature}\n{rest}"),
            format!("{rest}{signature}\n"),
        ] {
            let whole = NarInfo::parse(text.as_str(), &dir).unwrap();
            let part = whole.abridged();
            assert!(part.text().len() < whole.text().len() - 100);
            assert_eq!(part.guix_signature(), None);
            assert!(part.is_equivalent(&whole));
            assert_eq!(part.deriver(), whole.deriver());
            assert_eq!(part.system(), whole.system());
            assert!(part.downloads().is_empty());
            assert_eq!(part.abridged().text(), part.text());
            assert_eq!(whole.kept_text(), whole.text);
        }
    }

    /// A server cannot make anything large but what is signed.
    #[test]
    fn what_is_not_signed_is_bounded() {
        let dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        let junk = "x".repeat(500);
        let more: String = (0..90)
            .map(|n| format!("System: {junk}\nSig: {junk}\nX{n}: {junk}\n"))
            .collect();
        let urls: String = (0..9000)
            .map(|n| format!("URL: nar/{n}\nCompression: zstd\n"))
            .collect();
        let whole = NarInfo::parse(format!("{TEXT}{more}{urls}"), &dir).unwrap();
        assert!(whole.abridged().text().len() < 1000);
        let kept = NarInfo::parse(whole.kept_text(), &dir).unwrap();
        assert!(kept.text().len() < 8000, "{}", kept.text().len());
        assert_eq!(kept.signed_text(), whole.signed_text());
        assert_eq!(kept.guix_signature(), whole.guix_signature());
        assert_eq!(NarOffer::of(&kept), NarOffer::of(&whole));
    }

    #[test]
    fn blanks_between_references_are_not_kept() {
        let dir = StoreDir::parse(StoreDir::NIX).unwrap();
        let zeros = "0".repeat(32);
        let blanks = " ".repeat(90_000);
        let text = format!(
            "StorePath: /nix/store/{zeros}-a\nURL: x\nNarHash: sha256:{}\nNarSize: {}7\n\
             References: {zeros}-a{blanks}{zeros}-b\nSig: a:b\n",
            "0".repeat(52),
            "0".repeat(90_000),
        );
        let whole = NarInfo::parse(text, &dir).unwrap();
        let part = whole.abridged();
        assert!(part.is_equivalent(&whole) && part.text().len() < 200);
        let kept = NarInfo::parse(whole.kept_text(), &dir).unwrap();
        assert!(kept.is_equivalent(&whole) && kept.text().len() < 500);
        assert_eq!(kept.nix_signatures().collect::<Vec<_>>(), ["a:b"]);
    }
}
