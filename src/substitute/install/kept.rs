//! What an item's downloads have to do with those that are kept on disk.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::format::store_path::StorePath;
use crate::store::unpack::UnpackError;
use crate::store::{FreeSpace, StoreError};
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::spool_writer::{SpoolRequest, spool_name};
use crate::substitute::install::attempt_errors::{AttemptError, FailureClass};
use crate::substitute::install::errors::ItemError;
use crate::substitute::install::installer::{Installer, UnpackRequest};
use crate::substitute::install::space::check_free_space;
use crate::trust::verdict::AuthorizedNarInfo;

impl Installer {
    /// The item is valid, or where the user wants it: nothing has to be kept of it.
    pub(crate) fn item_is_complete(&self, item: &StorePath) {
        if let Some(spools) = &self.spools {
            spools.item_is_valid(item);
        }
    }

    /// Bytes of unfinished downloads that the next run finds.
    #[must_use]
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.spools.as_ref().map_or(0, |spools| spools.kept_bytes())
    }

    /// How the download of `candidate` is kept, if downloads are.
    pub(super) fn spool_request(
        &self,
        request: &UnpackRequest<'_>,
        candidate: &DownloadCandidate,
    ) -> Option<SpoolRequest> {
        let spools = self.spools.as_ref()?;
        Some(SpoolRequest {
            spools: spools.clone(),
            name: kept_name(request, candidate),
            item: request.item.clone(),
            nar_size: request.authorized.narinfo().nar_size(),
            expected_rate: self.rates().line(candidate.server).bytes_per_second,
        })
    }

    /// Refuses nars with these narinfos when they do not fit into `directory`, even after what earlier runs
    /// have kept of unfinished downloads is removed.
    ///
    /// # Errors
    /// There is too little space, or how much there is cannot be found out.
    pub(in crate::substitute) fn check_space<'a>(
        &self,
        directory: &Path,
        free_space: &dyn Fn() -> Result<FreeSpace, StoreError>,
        narinfos: impl Iterator<Item = &'a AuthorizedNarInfo> + Clone,
    ) -> Result<(), ItemError> {
        match check_free_space(directory, free_space()?, narinfos.clone()) {
            Err(ItemError::NoSpace { .. }) if self.make_room_in(directory) => {
                check_free_space(directory, free_space()?, narinfos)
            }
            checked => checked,
        }
    }

    /// Removes unfinished downloads that no process uses, if they are on the file system of `directory`;
    /// whether there were any.
    fn make_room_in(&self, directory: &Path) -> bool {
        let Some(spools) = &self.spools else {
            return false;
        };
        let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
        let is_same = device(spools.path()).is_some_and(|it| device(directory) == Some(it));
        is_same && spools.remove_all() > 0
    }

    /// Puts the downloads first of which fewer bytes are missing than the best one has.
    pub(super) fn put_kept_first(
        &self,
        request: &UnpackRequest<'_>,
        ranked: &mut [DownloadCandidate],
    ) {
        let (Some(spools), Some(best)) = (&self.spools, ranked.first()) else {
            return;
        };
        if spools.is_empty() {
            return;
        }
        let best_size = best.file_size.unwrap_or(u64::MAX);
        ranked.sort_by_cached_key(|candidate| {
            let kept = spools.progress(&kept_name(request, candidate));
            kept.map_or(best_size, |(bytes, size)| size - bytes.min(size))
                .min(best_size)
        });
    }

    /// Whether the failure may be due to what was kept on disk, which is removed then, so that the
    /// download is worth another attempt: bytes that were kept were wrong, or there is no space left.
    pub(super) fn is_fault_of_kept(
        &self,
        request: &UnpackRequest<'_>,
        candidate: &DownloadCandidate,
        error: &AttemptError,
    ) -> bool {
        let Some(spools) = &self.spools else {
            return false;
        };
        match error {
            AttemptError::Unpack(UnpackError::Write { source, .. })
                if matches!(
                    source.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded
                ) =>
            {
                spools.give_up_space() || spools.remove_all() > 0
            }
            // A shortage is not of the nar as long as others are under way.
            error if error.is_shortage() && !self.in_flight.is_empty() => false,
            error if error.class() == FailureClass::Refused || error.may_be_of_nar() => {
                spools.discard(&kept_name(request, candidate))
            }
            _ => false,
        }
    }
}

fn kept_name(request: &UnpackRequest<'_>, candidate: &DownloadCandidate) -> String {
    spool_name(&request.authorized.narinfo().nar_hash(), candidate)
}
