//! One endorsement: what is compared with the pool, and what the narinfo says.
//!
//! Nothing is signed that only the pool says: the store path, the references and the deriver are those
//! of the store database, the hash and the size those of the tree on the disk. The downloads are the
//! pool's, as absolute URLs; no signature covers them.

use std::sync::Arc;

use crate::format::hash::NarHash;
use crate::format::narinfo::{Download, NarFact, NarInfoError, NarOffer};
use crate::format::server_url::ServerUrl;
use crate::format::store_path::{StoreDir, StorePath};
use crate::store::ItemProvenance;
use crate::substitute::challenge::{LocalBuild, LocalHash};
use crate::substitute::claims::Claim;
use crate::substitute::outcome::LookupOutcome;

use super::key::EndorsementKey;

/// Why an item is not endorsed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NotEndorsed {
    /// It is not in the store.
    #[error("it is not valid in this store")]
    NotValid,
    /// A signature would only repeat what a server has said.
    #[error("it is not known to have been built here")]
    NotBuilt,
    /// Its tree cannot be read.
    #[error("its tree cannot be read: {0}")]
    Unreadable(String),
    /// Its tree was changed.
    #[error("its tree does not have the hash that the store database records")]
    Damaged,
    /// The pool has no narinfo for it.
    #[error("{server}: {outcome}")]
    NotInPool {
        /// The URL of the pool.
        server: String,
        /// What it answered.
        outcome: LookupOutcome,
    },
    /// The pool has another build.
    #[error("the server has another build, with the hash {theirs} instead of {ours}")]
    OtherContent {
        /// The hash that the pool's narinfo has.
        theirs: NarHash,
        /// That of the local tree.
        ours: NarHash,
    },
    /// The pool's narinfo has another size or other references.
    #[error("the server's narinfo has another {0}")]
    OtherDescription(&'static str),
    /// The pool's narinfo names no download that others can use.
    #[error("the server's narinfo names no download over http or https")]
    NoDownload,
    /// The pool's URLs do not make a narinfo.
    #[error("the narinfo would not be valid")]
    Invalid(#[source] Arc<NarInfoError>),
}

impl NotEndorsed {
    /// Whether a narinfo from an earlier run is wrong by now, or its nars are gone. It is not if the item
    /// is only no longer in the store, or changed there, or if the pool does not respond.
    pub(crate) fn outdates_endorsements(&self) -> bool {
        match self {
            Self::NotValid | Self::NotBuilt | Self::Unreadable(_) | Self::Damaged => false,
            Self::NotInPool { outcome, .. } => !outcome.is_undecided(),
            Self::OtherContent { .. }
            | Self::OtherDescription(_)
            | Self::NoDownload
            | Self::Invalid(_) => true,
        }
    }
}

/// An item whose local tree is the nar that the pool's narinfo describes.
pub(crate) struct Endorsement<'a> {
    item: &'a StorePath,
    record: &'a ItemProvenance,
    hash: NarHash,
    nar_size: u64,
    offer: &'a NarOffer,
}

impl<'a> Endorsement<'a> {
    /// Compares the `local` tree of `build` with what the `pool` claims.
    ///
    /// # Errors
    /// They are not the same, or not known to be.
    pub(crate) fn of(
        build: &'a LocalBuild,
        local: &LocalHash,
        claim: &'a Claim,
        pool: &ServerUrl,
    ) -> Result<Self, NotEndorsed> {
        let (ours, nar_size) = match local {
            LocalHash::NotValid => return Err(NotEndorsed::NotValid),
            LocalHash::NotBuilt => return Err(NotEndorsed::NotBuilt),
            LocalHash::Unreadable(why) => return Err(NotEndorsed::Unreadable(why.clone())),
            LocalHash::Hashed {
                is_as_registered: false,
                ..
            } => return Err(NotEndorsed::Damaged),
            LocalHash::Hashed { hash, nar_size, .. } => (*hash, *nar_size),
        };
        let record = build.counted.as_ref().ok_or(NotEndorsed::NotValid)?;
        let claim = claim.as_ref().map_err(|outcome| NotEndorsed::NotInPool {
            server: pool.as_str().to_owned(),
            outcome: outcome.clone(),
        })?;

        let theirs = claim.nar_hash;
        if theirs != ours {
            return Err(NotEndorsed::OtherContent { theirs, ours });
        }
        if claim.offer.nar_size() != nar_size {
            return Err(NotEndorsed::OtherDescription("size"));
        }
        let references = record.references.iter().map(StorePath::as_ref);
        let fact = NarFact::new(build.item.as_ref(), ours, nar_size, references);
        if claim.offer.fact() != fact {
            return Err(NotEndorsed::OtherDescription("list of references"));
        }

        Ok(Self {
            item: &build.item,
            record,
            hash: ours,
            nar_size,
            offer: &claim.offer,
        })
    }

    /// The narinfo, signed with `key`; its nars are in `pool`.
    ///
    /// # Errors
    /// Others cannot download the nar from the pool.
    pub(crate) fn narinfo(
        &self,
        key: &EndorsementKey,
        pool: &ServerUrl,
        store_dir: &StoreDir,
    ) -> Result<String, NotEndorsed> {
        let downloads = self.offer.downloads().iter();
        let downloads: Vec<String> = downloads
            .filter_map(|download| self.download_lines(download, pool))
            .collect();
        if downloads.is_empty() {
            return Err(NotEndorsed::NoDownload);
        }
        let description = self.description(store_dir);
        key.signed_narinfo(&description, &downloads, store_dir)
            .map_err(NotEndorsed::Invalid)
    }

    /// The lines that a signature covers.
    fn description(&self, store_dir: &StoreDir) -> String {
        let references = self.record.references.iter().map(StorePath::base);
        let references = references.collect::<Vec<_>>().join(" ");
        let path = store_dir.display(self.item);
        let (hash, size) = (self.hash, self.nar_size);
        let mut text = format!(
            "StorePath: {path}\nNarHash: {hash}\nNarSize: {size}\nReferences: {references}\n"
        );
        if let Some(deriver) = &self.record.deriver {
            text.push_str(&format!("Deriver: {}\n", deriver.base()));
        }
        text
    }

    /// The lines about one of the pool's downloads; `None` if others cannot use it.
    fn download_lines(&self, download: &Download, pool: &ServerUrl) -> Option<String> {
        let method = download.method()?;
        let url = pool.nar_url(self.offer.download_url(download)).ok()?;
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }

        let mut lines = format!("URL: {url}\nCompression: {method}\n");
        if let Some(hash) = download.file_hash {
            lines.push_str(&format!("FileHash: {hash}\n"));
        }
        if let Some(size) = download.file_size {
            lines.push_str(&format!("FileSize: {size}\n"));
        }
        Some(lines)
    }
}
