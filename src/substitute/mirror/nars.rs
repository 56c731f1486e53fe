//! The nars of one item: found in the mirror or copied to it, each verified before it gets its name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::failure::MirrorFailure;
use super::incoming::IncomingNarName;
use super::key::MirrorKey;
use super::lookup::ServerNarInfo;
use super::stored::NamedNar;
use super::tally::{CountedWriter, MirrorTally};
use super::target::{IncomingNar, MirrorTarget, TargetError};
use super::text::DownloadEdit;
use crate::format::hash::FileHash;
use crate::format::server_list::ServerList;
use crate::format::server_url::redacted;
use crate::format::store_path::StorePathRef;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::checked_copy::{CheckedNarFile, NarCopier, NarFileClaims};
use crate::substitute::download::errors::{CopyError, TransferError};
use crate::substitute::download::retries::ItemRetries;
use crate::substitute::install::FailureClass;
use crate::sync::lock;

/// A lock for each name.
#[derive(Default)]
pub(super) struct KeyLocks(Mutex<HashMap<MirrorKey, Arc<Mutex<()>>>>);

impl KeyLocks {
    fn of(&self, key: &MirrorKey) -> Arc<Mutex<()>> {
        let mut locks = lock(&self.0);
        Arc::clone(locks.entry(key.clone()).or_default())
    }
}

/// Copies nars to a mirror.
pub(super) struct NarStorage<'a> {
    pub(super) target: &'a MirrorTarget,
    pub(super) copier: &'a NarCopier,
    pub(super) servers: &'a ServerList,
    pub(super) tally: &'a MirrorTally,
    /// Held while a nar is copied.
    pub(super) naming: KeyLocks,
    /// Nars that were copied, and bytes of them.
    pub(super) copied: AtomicU64,
    pub(super) copied_bytes: AtomicU64,
}

impl NarStorage<'_> {
    /// Makes the mirror have the `wanted` nars of `narinfo`: how its text has to be edited. The `own`
    /// nars are those that the narinfo of the mirror names: if one of them is damaged, it is replaced.
    pub(super) fn store_all(
        &self,
        narinfo: &ServerNarInfo,
        wanted: &[NamedNar],
        own: &[NamedNar],
    ) -> Result<Vec<DownloadEdit>, MirrorFailure> {
        let mut edits = vec![DownloadEdit::Remove; narinfo.narinfo.downloads().len()];
        for nar in wanted {
            let key = self.store(narinfo, nar, own)?;
            edits[nar.place] = match nar.key.as_ref() == Some(&key) {
                true => DownloadEdit::Keep,
                false => DownloadEdit::Move(key.as_str().to_owned()),
            };
        }
        Ok(edits)
    }

    /// The key under which the mirror has the nar, which may be another one than that of its URL.
    fn store(
        &self,
        narinfo: &ServerNarInfo,
        nar: &NamedNar,
        own: &[NamedNar],
    ) -> Result<MirrorKey, MirrorFailure> {
        let by_hash = nar
            .claims
            .file_hash
            .map(|hash| MirrorKey::of_file_hash(hash.as_bytes()));
        let own_key = self.own_key(narinfo.narinfo.store_path(), nar, own)?;
        // Held until the nar has its name: nothing comes between the look at the name and that, and what several items
        // have is copied once.
        let name = own_key.or(by_hash.as_ref());
        let naming = name.map(|name| self.naming.of(name));
        let _naming = naming.as_ref().map(|naming| lock(naming));
        let mut is_taken = false;
        for key in own_key.into_iter().chain(&by_hash) {
            match self.is_there(key, &nar.claims)? {
                Some(true) => {
                    self.target.keep_name(key);
                    return Ok(key.clone());
                }
                Some(false) if Some(key) == own_key => {
                    is_taken = !is_own(own, key, &nar.claims);
                }
                Some(false) | None => {}
            }
        }
        if is_taken && nar.is_signed {
            return Err(MirrorFailure::SignedUrl(nar.url.clone()));
        }

        let expected = own_key.filter(|_| !is_taken);
        let (file, hash) = self.copy(narinfo, nar, expected.or(by_hash.as_ref()))?;
        let by_hash = MirrorKey::of_file_hash(hash.as_bytes());
        let key = match own_key {
            Some(key) if *key == by_hash => key,
            Some(key) if !is_taken && self.may_become(key, nar, own)? => key,
            Some(key) if nar.is_signed => {
                return match self.is_there(key, &nar.claims)? {
                    Some(true) => Ok(key.clone()),
                    _ => Err(MirrorFailure::SignedUrl(nar.url.clone())),
                };
            }
            _ => &by_hash,
        };
        self.target.publish(file, key, &hash)?;
        Ok(key.clone())
    }

    /// The key of the URL of `nar`, if the nar can have it: a server chooses no other file of the mirror.
    fn own_key<'n>(
        &self,
        item: StorePathRef<'_>,
        nar: &'n NamedNar,
        own: &[NamedNar],
    ) -> Result<Option<&'n MirrorKey>, MirrorFailure> {
        let key = nar.key.as_ref().filter(|key| {
            let is_usual = key.is_of_nar_of(item) || key.is_by_hash();
            let size = self.target.size(key);
            (is_usual || nar.is_signed || is_own(own, key, &nar.claims))
                && !size.is_err_and(|error| error.is_of_other_kind())
        });
        match key.is_none() && nar.is_signed {
            true => Err(MirrorFailure::SignedUrl(nar.url.clone())),
            false => Ok(key),
        }
    }

    /// Whether `nar`, which is not the file `key`, may become it.
    fn may_become(
        &self,
        key: &MirrorKey,
        nar: &NamedNar,
        own: &[NamedNar],
    ) -> Result<bool, MirrorFailure> {
        // The nar of another item may have got such a name by its hash, or get it later.
        let is_free = !key.is_by_hash() && self.is_there(key, &nar.claims)?.is_none();
        Ok(is_free || is_own(own, key, &nar.claims))
    }

    /// Whether the file `key` is the nar of `claims`; `None` if there is no such file.
    fn is_there(
        &self,
        key: &MirrorKey,
        claims: &NarFileClaims,
    ) -> Result<Option<bool>, MirrorFailure> {
        let Some(size) = self.target.size(key)? else {
            return Ok(None);
        };
        if claims.file_size.is_some_and(|claimed| claimed != size) {
            return Ok(Some(false));
        }
        let Some(file) = self.target.file(key)? else {
            return Ok(None);
        };
        match self.copier.check(file, claims) {
            Ok(_) => Ok(Some(true)),
            Err(CopyError::Transfer(TransferError::Canceled)) => Err(MirrorFailure::Interrupted),
            Err(error) if error.is_of_contents() => Ok(Some(false)),
            // What cannot be read now may be right.
            Err(CopyError::Read(error)) => Err(TargetError::of_read(key, error).into()),
            Err(source) => Err(MirrorFailure::Copy {
                url: key.as_str().to_owned(),
                source,
            }),
        }
    }

    /// Copies the nar, which probably becomes the file `key`: the file, which has no name yet, and its hash.
    fn copy(
        &self,
        narinfo: &ServerNarInfo,
        nar: &NamedNar,
        key: Option<&MirrorKey>,
    ) -> Result<(IncomingNar<'_>, FileHash), MirrorFailure> {
        let url = self.servers[narinfo.server].nar_url(&nar.url);
        let url = url.map_err(|_| MirrorFailure::ForbiddenUrl(nar.url.clone()))?;
        let candidate = DownloadCandidate {
            server: narinfo.server,
            url,
            compression: nar.claims.compression,
            file_size: nar.claims.file_size,
        };

        let mut file = self.incoming(narinfo, nar, key)?;
        let retries = self.copier.new_retries(candidate.server);
        let mut copied = self.copy_to(&mut file, &candidate, nar, &retries);
        while let Err(error) = &copied
            && (retries.take_assumed_end() || (file.kept().is_some() && error.is_of_contents()))
        {
            // What was kept may be to blame, and not the server, or what broke off was not complete.
            let written = file.clear().map_err(CopyError::Write);
            copied = written.and_then(|written| {
                self.tally.received.fetch_sub(written, Ordering::Relaxed);
                self.copy_to(&mut file, &candidate, nar, &retries)
            });
        }

        let copied = copied.map_err(|source| match source {
            CopyError::Transfer(TransferError::Canceled) => MirrorFailure::Interrupted,
            source => MirrorFailure::Copy {
                url: redacted(&candidate.url),
                source,
            },
        });
        match copied {
            Ok(copied) => {
                self.copied.fetch_add(1, Ordering::Relaxed);
                self.copied_bytes.fetch_add(copied.size, Ordering::Relaxed);
                Ok((file, copied.hash))
            }
            Err(failure) => {
                let failure = file.take_failure().map_or(failure, MirrorFailure::from);
                if nar.claims.expected_bytes().is_some() && is_of_outage(&failure) {
                    file.keep();
                }
                Err(failure)
            }
        }
    }

    /// The file to write the nar to.
    fn incoming(
        &self,
        narinfo: &ServerNarInfo,
        nar: &NamedNar,
        key: Option<&MirrorKey>,
    ) -> Result<IncomingNar<'_>, TargetError> {
        let name = IncomingNarName::new(narinfo.narinfo.store_path(), &nar.claims);
        match name.zip(nar.claims.expected_bytes()) {
            Some((name, bytes)) => self.target.incoming_nar(&name, bytes, key),
            None => self.target.new_nar(),
        }
    }

    fn copy_to(
        &self,
        file: &mut IncomingNar<'_>,
        candidate: &DownloadCandidate,
        nar: &NamedNar,
        retries: &Arc<ItemRetries>,
    ) -> Result<CheckedNarFile, CopyError> {
        let kept = file.kept();
        let mut counted = CountedWriter {
            inner: file,
            count: &self.tally.received,
        };
        self.copier
            .copy(candidate, &nar.claims, kept, retries, &mut counted)
    }
}

/// Whether what was copied before `failure` is right, as far as is known.
fn is_of_outage(failure: &MirrorFailure) -> bool {
    let is_of_sending = matches!(
        failure,
        MirrorFailure::Target(TargetError::Bucket { .. } | TargetError::LeaseLost(_))
    );
    is_of_sending
        || matches!(
            failure.class(),
            FailureClass::Transient | FailureClass::Interrupted
        )
}

/// Whether `own` nars have one of these `claims` at `key`.
fn is_own(own: &[NamedNar], key: &MirrorKey, claims: &NarFileClaims) -> bool {
    let mut own = own.iter();
    own.any(|nar| nar.key.as_ref() == Some(key) && nar.claims == *claims)
}
