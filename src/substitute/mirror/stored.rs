//! Which nars of a narinfo a mirror has, and whether what is there is still what the server has.

use std::collections::HashSet;

use super::failure::MirrorFailure;
use super::key::MirrorKey;
use super::signatures::signatures;
use super::target::{MirrorTarget, TargetError};
use super::text::unsigned_start;
use crate::format::compression::Compression;
use crate::format::narinfo::{MAX_BYTES, NarInfo};
use crate::format::store_path::{Dialect, StoreDir, StorePathRef};
use crate::substitute::download::checked_copy::NarFileClaims;

/// A nar that a narinfo names.
#[derive(Debug, Clone)]
pub(super) struct NamedNar {
    /// Its place among the narinfo's downloads.
    pub(super) place: usize,
    /// The URL as the narinfo has it.
    pub(super) url: String,
    /// Its key in a mirror, if the URL can be one.
    pub(super) key: Option<MirrorKey>,
    /// Whether the URL is signed and cannot change.
    pub(super) is_signed: bool,
    pub(super) claims: NarFileClaims,
}

/// The nars that `narinfo` names, without those of unknown compression methods.
pub(super) fn named_nars(narinfo: &NarInfo, dialect: Dialect) -> Vec<NamedNar> {
    let unsigned = unsigned_start(narinfo, dialect);
    let downloads = narinfo.downloads().iter().enumerate();
    let nars = downloads.filter_map(|(place, download)| {
        let url = narinfo.download_url(download).to_owned();
        Some(NamedNar {
            place,
            key: MirrorKey::of_nar(&url),
            url,
            is_signed: narinfo.download_url_end(download) <= unsigned,
            claims: NarFileClaims {
                nar_hash: narinfo.nar_hash(),
                nar_size: narinfo.nar_size(),
                compression: *download.compression.as_ref().ok()?,
                file_hash: download.file_hash,
                file_size: download.file_size,
            },
        })
    });
    nars.collect()
}

/// The compression methods of `narinfo`, without unknown ones.
pub(super) fn known_methods(narinfo: &NarInfo) -> Vec<Compression> {
    let downloads = narinfo.downloads().iter();
    downloads
        .filter_map(|download| download.compression.as_ref().ok().copied())
        .collect()
}

/// The nars of `narinfo` that a mirror gets: those of `methods`, or all if there are none; the smallest if
/// the server has none of `methods`.
///
/// # Errors
/// There is no nar that can be verified, or a URL that cannot change cannot be a key.
pub(super) fn wanted_nars(
    narinfo: &NarInfo,
    dialect: Dialect,
    methods: &[Compression],
) -> Result<Vec<NamedNar>, MirrorFailure> {
    let mut nars = named_nars(narinfo, dialect);
    let has_wanted = nars
        .iter()
        .any(|nar| methods.contains(&nar.claims.compression));
    if has_wanted {
        nars.retain(|nar| nar.is_signed || methods.contains(&nar.claims.compression));
    } else if !methods.is_empty() {
        let smallest = nars
            .iter()
            .min_by_key(|nar| nar.claims.file_size.unwrap_or(u64::MAX));
        let smallest = smallest.map(|nar| nar.place);
        nars.retain(|nar| nar.is_signed || Some(nar.place) == smallest);
    }

    if nars.is_empty() {
        return Err(MirrorFailure::NoDownload);
    }
    let unusable = nars.iter().find(|nar| nar.is_signed && nar.key.is_none());
    match unusable {
        Some(nar) => Err(MirrorFailure::SignedUrl(nar.url.clone())),
        None => Ok(nars),
    }
}

/// The narinfo of `item` in a mirror, if it can be read.
pub(super) fn stored_narinfo(
    target: &MirrorTarget,
    item: StorePathRef<'_>,
    store_dir: &StoreDir,
) -> Result<Option<NarInfo>, TargetError> {
    let key = MirrorKey::of_narinfo(&item.hash_part());
    let text = target.text(&key, MAX_BYTES)?;
    let narinfo = text.and_then(|text| NarInfo::parse(text, store_dir).ok());
    Ok(narinfo.filter(|narinfo| narinfo.store_path() == item))
}

/// Whether the mirror has all nars that its narinfo `stored` names, as far as their sizes tell.
pub(super) fn has_nars(
    target: &MirrorTarget,
    stored: &NarInfo,
    dialect: Dialect,
) -> Result<bool, TargetError> {
    let nars = named_nars(stored, dialect);
    for nar in &nars {
        let size = match &nar.key {
            Some(key) => match target.size(key) {
                Err(error) if error.is_of_other_kind() => None,
                size => size?,
            },
            None => None,
        };
        let is_there = size.is_some() && nar.claims.file_size.is_none_or(|it| size == Some(it));
        if !is_there {
            return Ok(false);
        }
    }
    Ok(!nars.is_empty() && nars.len() == stored.downloads().len())
}

/// Whether the narinfo `stored` says what `narinfo` and `added` signatures say, and names all of the
/// `wanted` nars.
pub(super) fn is_current(
    stored: &NarInfo,
    narinfo: &NarInfo,
    wanted: &[NamedNar],
    added: &[String],
    store_dir: &StoreDir,
) -> bool {
    let dialect = store_dir.dialect();
    let has_same_text = dialect == Dialect::Nix || stored.signed_text() == narinfo.signed_text();
    let present: HashSet<&str> = signatures(stored, store_dir).collect();
    let mut needed = signatures(narinfo, store_dir).chain(added.iter().map(String::as_str));
    let named = named_nars(stored, dialect);

    has_same_text
        && stored.is_equivalent(narinfo)
        && needed.all(|signature| present.contains(signature))
        && wanted
            .iter()
            .all(|nar| named.iter().any(|other| other.claims == nar.claims))
}
