//! The part of a narinfo that is kept to download its nar: which nar it describes, and its URLs.
//!
//! A server may send any number of narinfos that no authorized key has signed. Of those only this
//! part is kept. Its size is bounded whatever the size of the narinfo: at most 32 downloads, 4 KiB
//! of URLs in all, and a digest in place of the references.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;

use super::download::Download;
use super::fact::NarFact;
use super::info::NarInfo;
use super::limits::{DOWNLOADS_MAX, URLS_BYTES_MAX};
use super::span::Span;
use crate::format::compression::{Compression, UnknownCompression};
use crate::format::hash::HashForm;

/// What a narinfo states of a nar, and its downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NarOffer {
    fact: NarFact,
    nar_size: u64,
    urls: Box<str>,
    downloads: Box<[Download]>,
}

impl NarOffer {
    /// The offer that `narinfo` makes.
    #[must_use]
    pub(crate) fn of(narinfo: &NarInfo) -> Self {
        let mut urls = String::new();
        let mut downloads = Vec::with_capacity(narinfo.downloads().len());
        for download in narinfo.downloads() {
            add(
                &mut urls,
                &mut downloads,
                narinfo.download_url(download),
                download,
            );
        }

        Self {
            fact: NarFact::of(narinfo),
            nar_size: narinfo.nar_size(),
            urls: urls.into(),
            downloads: downloads.into(),
        }
    }

    /// What the narinfo states of the nar.
    #[must_use]
    pub(crate) fn fact(&self) -> NarFact {
        self.fact
    }

    /// The size of the uncompressed nar, in bytes.
    #[must_use]
    pub(crate) fn nar_size(&self) -> u64 {
        self.nar_size
    }

    /// The downloads of the nar, in the order of the narinfo.
    #[must_use]
    pub(crate) fn downloads(&self) -> &[Download] {
        &self.downloads
    }

    /// The `URL` of one of this offer's own [`downloads`](Self::downloads), unchanged.
    #[must_use]
    pub(crate) fn download_url(&self, download: &Download) -> &str {
        download.url.of(&self.urls)
    }

    /// Whether both describe the same item with the same content and references, in whatever order,
    /// so that the downloads of each can be used for the other.
    #[must_use]
    pub(crate) fn is_same_nar(&self, other: &Self) -> bool {
        self.fact == other.fact
    }

    /// The offer as text, for [`NarOffer::parse`].
    #[must_use]
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{} {}\n", HEXLOWER.encode(&self.fact.0), self.nar_size);
        for download in &self.downloads {
            let method = match &download.compression {
                Ok(method) => method.name(),
                Err(UnknownCompression(name)) => name,
            };
            let size = download
                .file_size
                .map_or_else(String::new, |size| size.to_string());
            let url = self.download_url(download);
            // Writing to a string cannot fail; no value has a line break, since fields end there.
            let _ = writeln!(text, "{url}\n{method}\n{size}");
        }

        text
    }

    /// The offer that [`NarOffer::to_text`] has written; file hashes are not part of it.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (fact, nar_size) = lines.next()?.split_once(' ')?;
        let fact = HEXLOWER.decode(fact.as_bytes()).ok()?.try_into().ok()?;
        let nar_size = nar_size.parse().ok()?;
        let (mut urls, mut downloads) = (String::new(), Vec::new());

        while let Some(url) = lines.next() {
            let compression = Compression::parse(lines.next()?);
            let file_size = match lines.next()? {
                "" => None,
                size => Some(size.parse().ok()?),
            };
            let (file_hash, file_hash_form) = (None, HashForm::Base32);
            let url_span = Span::new(0, 0);
            let download = Download {
                compression,
                file_size,
                file_hash,
                file_hash_form,
                url: url_span,
            };
            add(&mut urls, &mut downloads, url, &download);
        }

        Some(Self {
            fact: NarFact(fact),
            nar_size,
            urls: urls.into(),
            downloads: downloads.into(),
        })
    }
}

/// Adds `download`, whose address is `url`, if there is room for it.
fn add(urls: &mut String, downloads: &mut Vec<Download>, url: &str, download: &Download) {
    let start = urls.len();
    if start + url.len() <= URLS_BYTES_MAX && downloads.len() < DOWNLOADS_MAX {
        urls.push_str(url);
        let url = Span::new(start, urls.len());
        downloads.push(Download {
            url,
            ..download.clone()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::store_path::StoreDir;

    const TEXT: &str = include_str!("../../../fixtures/signatures/vector-a.narinfo");

    fn narinfo(text: &str) -> NarInfo {
        NarInfo::parse(text, &StoreDir::parse(StoreDir::GUIX).unwrap()).unwrap()
    }

    #[test]
    fn an_offer_survives_as_text() {
        let more = "URL: nar/x\nCompression: br\nURL: nar/y\nURL: nar/z\nCompression: none\n";
        for text in [TEXT.to_owned(), format!("{TEXT}{more}")] {
            let offer = NarOffer::of(&narinfo(&text));
            assert!(!offer.downloads().is_empty());
            assert_eq!(NarOffer::parse(&offer.to_text()), Some(offer));
        }
        for text in ["", "x", "x 1\n", "00 1\n"] {
            assert_eq!(NarOffer::parse(text), None);
        }
    }

    #[test]
    fn offers_are_the_same_when_their_narinfos_are_equivalent() {
        let offer = NarOffer::of(&narinfo(TEXT));
        let elsewhere = format!("{TEXT}URL: elsewhere\nCompression: none\n");
        assert!(offer.is_same_nar(&NarOffer::of(&narinfo(&elsewhere))));

        let [one, other] = ["1", "2"].map(|digit| format!("{}-x", digit.repeat(32)));
        let [both, reversed] =
            [format!("{one} {other}"), format!("{other} {one} {other}")].map(|references| {
                narinfo(&TEXT.replace("References: ", &format!("References: {references}")))
            });
        assert!(NarOffer::of(&both).is_same_nar(&NarOffer::of(&reversed)));
        assert!(both.is_equivalent(&reversed) && !both.is_equivalent(&narinfo(TEXT)));
        let size = TEXT.replace("NarSize: ", "NarSize: 1");
        let references = TEXT.replace(
            "References: ",
            &format!("References: {}-x ", "0".repeat(32)),
        );
        for other in [size, references] {
            assert_ne!(other, TEXT);
            assert!(!offer.is_same_nar(&NarOffer::of(&narinfo(&other))));
        }
    }

    #[test]
    fn the_size_of_an_offer_is_bounded() {
        let many: String = (0..30_000)
            .map(|n| format!("URL: nar/{n}\nCompression: zstd\n"))
            .collect();
        let offer = NarOffer::of(&narinfo(&format!("{TEXT}{many}")));
        assert_eq!(offer.downloads().len(), DOWNLOADS_MAX);
        let long = format!(
            "URL: {}\nCompression: zstd\nURL: short\nCompression: zstd\n",
            "x".repeat(9000)
        );
        let offer = NarOffer::of(&narinfo(&format!("{TEXT}{long}")));
        let urls: Vec<&str> = offer
            .downloads()
            .iter()
            .map(|one| offer.download_url(one))
            .collect();
        assert_eq!(urls.last(), Some(&"short"));
        assert!(urls.iter().map(|url| url.len()).sum::<usize>() <= URLS_BYTES_MAX);
    }
}
