//! A narinfo without its Guix signature, which takes up most of the text.
//!
//! Once a signature has been checked nothing needs it any more, but the rest of the narinfo is
//! kept for as long as a run takes, for tens of thousands of items.

use super::fields::Field;
use super::{NarInfo, Span};

impl NarInfo {
    /// The same without the value of its `Signature` field. [`text`](Self::text) is not the
    /// server's any more: what is to be checked again must be kept elsewhere.
    #[must_use]
    pub fn without_guix_signature(mut self) -> Self {
        let Some(cut) = self.scalars[Field::Signature as usize].take() else { return self };
        let (before, after) = (&self.text[..cut.start as usize], &self.text[cut.end()..]);
        self.text = [before, after].concat().into();
        let length = cut.end - cut.start;
        let shift = |span: &mut Span| {
            if span.start >= cut.end {
                (span.start, span.end) = (span.start - length, span.end - length);
            }
        };
        self.scalars.iter_mut().flatten().for_each(shift);
        self.deriver.iter_mut().for_each(shift);
        self.nix_signatures.iter_mut().for_each(shift);
        self.downloads.iter_mut().for_each(|download| shift(&mut download.url));
        shift(&mut self.store_path);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store_path::StoreDir;

    const TEXT: &str = include_str!("../../../fixtures/signatures/vector-a.narinfo");

    #[test]
    fn everything_but_the_signature_stays() {
        let dir = StoreDir::parse(StoreDir::GUIX).unwrap();
        let signature = TEXT.lines().find(|line| line.starts_with("Signature: ")).unwrap();
        let rest = TEXT.replace(&format!("{signature}\n"), "");
        // The signature in front of everything, in the middle, and behind everything.
        for text in
            [TEXT.to_owned(), format!("{signature}\n{rest}"), format!("{rest}{signature}\n")]
        {
            let whole = NarInfo::parse(text.as_str(), &dir).unwrap();
            let part = whole.clone().without_guix_signature();
            assert!(part.text().len() < whole.text().len() - 100);
            assert_eq!(part.guix_signature(), None);
            assert!(part.is_equivalent(&whole));
            assert_eq!(part.deriver(), whole.deriver());
            assert_eq!(part.system(), whole.system());
            let urls = |narinfo: &NarInfo| -> Vec<String> {
                let urls =
                    narinfo.downloads().iter().map(|download| narinfo.download_url(download));
                urls.map(str::to_owned).collect()
            };
            assert_eq!(urls(&part), urls(&whole));
            assert!(!urls(&part).is_empty());
            let again = part.clone().without_guix_signature();
            assert_eq!(again.text(), part.text());
        }
    }
}
