//! Verification: what a mirror has, compared with what its narinfos say.
//!
//! A mirror that another process writes to meanwhile can be verified: a fault is reported only if its
//! narinfo is still there.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, Builder};

use super::cache_info::stated_store;
use super::failure::{MirrorFailure, class_of_copy};
use super::findings::{MirrorFault, MirrorFinding, MirrorVerification, VerificationWork};
use super::inventory::{Inventory, ListedNarInfo, NarInfoFault, read_narinfo, read_narinfos_ahead};
use super::key::MirrorKey;
use super::lookup::MirrorTrust;
use super::stored::{NamedNar, named_nars};
use super::target::{MirrorTarget, TargetError};
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{HashPart, StoreDir};
use crate::substitute::cancel::Cancel;
use crate::substitute::closure::TICK;
use crate::substitute::download::checked_copy::NarCopier;
use crate::substitute::install::FailureClass;
use crate::substitute::progress::{Progress, ProgressEvent, with_ticks};
use crate::sync::lock;
use crate::trust::signed::verify_all;
use crate::trust::verdict::{Authorization, judge};

/// Narinfos whose signatures are verified together.
const BATCH: usize = 16;

/// Verifies mirrors.
pub(crate) struct MirrorVerifier<'a> {
    /// The mirror.
    pub(crate) target: &'a MirrorTarget,
    /// Who has to have signed the narinfos.
    pub(crate) trust: &'a MirrorTrust,
    /// The store that the items are for.
    pub(crate) store_dir: &'a StoreDir,
    /// Reads the nars too, if there is one.
    pub(crate) copier: Option<&'a NarCopier>,
    /// Narinfos or nars that are verified at the same time.
    pub(crate) jobs: usize,
    /// Is told how far it is.
    pub(crate) progress: &'a dyn Progress,
    /// Raised when the user interrupts.
    pub(crate) cancel: &'a Cancel,
}

impl MirrorVerifier<'_> {
    /// Verifies the mirror.
    ///
    /// # Errors
    /// Its files cannot be listed, or the user interrupted.
    pub(crate) fn run(&self) -> Result<MirrorVerification, MirrorFailure> {
        let inventory = Inventory::list(self.target)?;
        let mut found = self.verify(&inventory, &inventory.narinfos.iter().collect::<Vec<_>>())?;

        if stated_store(self.target)?.is_none() {
            let cache_info = MirrorKey::of_cache_info();
            let fault = match self.target.current_size(&cache_info)? {
                None => Some(MirrorFault::Missing),
                // It may have been written since.
                Some(_) if stated_store(self.target)?.is_some() => None,
                Some(_) => Some(MirrorFault::CacheInfo),
            };
            found.findings.extend(fault.map(|fault| MirrorFinding {
                item: None,
                file: cache_info.to_string(),
                fault,
            }));
        }
        found
            .findings
            .sort_by(|one, other| one.file.cmp(&other.file));
        Ok(found)
    }

    /// Verifies `items` again: the faults that they still have.
    ///
    /// # Errors
    /// As for [`MirrorVerifier::run`].
    pub(crate) fn run_again(
        &self,
        items: &HashSet<HashPart>,
    ) -> Result<Vec<MirrorFinding>, MirrorFailure> {
        let inventory = Inventory::list(self.target)?;
        let narinfos = inventory.narinfos.iter();
        let narinfos: Vec<_> = narinfos.filter(|it| items.contains(&it.item)).collect();
        Ok(self.verify(&inventory, &narinfos)?.findings)
    }

    fn verify(
        &self,
        inventory: &Inventory,
        narinfos: &[&ListedNarInfo],
    ) -> Result<MirrorVerification, MirrorFailure> {
        let work = VerificationWork::new(inventory, narinfos, self.copier.is_some());
        with_ticks(
            TICK,
            || {
                self.progress
                    .event(ProgressEvent::Verifying(work.progress()))
            },
            || {
                thread::scope(|scope| {
                    for number in 1..self.jobs.min(narinfos.len().div_ceil(BATCH)) {
                        let thread = Builder::new().name(format!("verify-{number}"));
                        // What no thread does is done by this one below.
                        let _ = thread.spawn_scoped(scope, || self.verify_next(&work));
                    }
                    self.verify_next(&work);
                });
            },
        );
        self.progress.event(ProgressEvent::Finished);
        work.finish(inventory)
    }

    /// Verifies batches until there are no more.
    fn verify_next(&self, work: &VerificationWork<'_>) {
        while lock(&work.end).is_none() {
            if self.cancel.is_canceled() {
                lock(&work.end).get_or_insert(MirrorFailure::Interrupted);
                return;
            }
            let start = work.next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(rest) = work.narinfos.get(start..).filter(|rest| !rest.is_empty()) else {
                return;
            };
            if let Err(failure) = self.verify_batch(work, &rest[..rest.len().min(BATCH)]) {
                lock(&work.end).get_or_insert(failure);
            }
        }
    }

    fn verify_batch(
        &self,
        work: &VerificationWork<'_>,
        batch: &[&ListedNarInfo],
    ) -> Result<(), MirrorFailure> {
        read_narinfos_ahead(self.target, batch.iter().copied())?;
        let mut narinfos = Vec::with_capacity(batch.len());
        for listed in batch {
            let fault = match read_narinfo(self.target, &listed.item, self.store_dir) {
                Ok(None) => continue,
                Ok(Some(Ok(narinfo))) => {
                    narinfos.push(Arc::new(narinfo));
                    continue;
                }
                Ok(Some(Err(fault))) => MirrorFault::NarInfo(fault),
                Err(error) => MirrorFault::Unreadable(error),
            };
            let file = MirrorKey::of_narinfo(&listed.item).to_string();
            let item = None;
            lock(&work.found)
                .findings
                .push(MirrorFinding { item, file, fault });
        }

        let authorized = self.authorize(&narinfos);
        for (narinfo, refusal) in narinfos.iter().zip(authorized) {
            let item = narinfo.store_path().to_path();
            let key = MirrorKey::of_narinfo(&item.hash_part());
            let mut faults: Vec<(String, MirrorFault)> = Vec::new();
            faults.extend(refusal.map(|fault| (key.to_string(), fault)));
            self.check_references(work, narinfo, &mut faults)?;
            self.check_nars(work, narinfo, &mut faults)?;
            if !faults.is_empty() && self.target.current_size(&key)?.is_none() {
                continue;
            }
            work.note(narinfo, &item, faults);
        }
        let count = batch.len() as u64;
        work.done.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// Why each of `narinfos` is not authorized, if it is not.
    fn authorize(&self, narinfos: &[Arc<NarInfo>]) -> Vec<Option<MirrorFault>> {
        let MirrorTrust { keys, policy } = self.trust;
        let claims = narinfos.iter();
        let claims = claims.map(|narinfo| (Arc::clone(narinfo), narinfo.store_path()));
        let scope = policy.signature_scope();
        let verdicts = verify_all(claims.collect(), keys, self.store_dir, scope);
        let faults = verdicts.into_iter().map(|verdict| {
            let signed = match verdict {
                Ok(signed) => signed,
                Err(refusal) => return Some(MirrorFault::Unauthorized(refusal)),
            };
            let need = policy.quorum(signed.narinfo().store_path());
            let judgment = judge(policy, need, &[&signed]);
            if let Some(refusal) = judgment.refusal() {
                return Some(MirrorFault::Unauthorized(refusal.clone()));
            }
            match judgment.authorize(&signed) {
                Some(Authorization::Verified(it)) if it.verified_nar_size().is_some() => None,
                _ => Some(MirrorFault::ContentOnly),
            }
        });
        faults.collect()
    }

    /// Whether `item`, which was not listed, has the narinfo `key` by now; the target is asked once for each.
    fn has_narinfo_now(
        &self,
        work: &VerificationWork<'_>,
        item: HashPart,
        key: &MirrorKey,
    ) -> Result<bool, TargetError> {
        if let Some(&known) = lock(&work.asked).get(&item) {
            return Ok(known);
        }
        let is_there = self.target.current_size(key)?.is_some();
        lock(&work.asked).insert(item, is_there);
        Ok(is_there)
    }

    fn check_references(
        &self,
        work: &VerificationWork<'_>,
        narinfo: &NarInfo,
        faults: &mut Vec<(String, MirrorFault)>,
    ) -> Result<(), TargetError> {
        for reference in narinfo.references() {
            let (item, key) = (
                reference.hash_part(),
                MirrorKey::of_narinfo(&reference.hash_part()),
            );
            if work.listed.contains(&item) {
                continue;
            }
            let fault = match self.has_narinfo_now(work, item, &key) {
                Ok(true) => continue,
                Ok(false) => MirrorFault::MissingReference(reference.to_path()),
                Err(error) if error.is_of_other_kind() => MirrorFault::Unreadable(error),
                Err(error) => return Err(error),
            };
            faults.push((key.to_string(), fault));
        }
        Ok(())
    }

    fn check_nars(
        &self,
        work: &VerificationWork<'_>,
        narinfo: &NarInfo,
        faults: &mut Vec<(String, MirrorFault)>,
    ) -> Result<(), MirrorFailure> {
        let nars = named_nars(narinfo, self.store_dir.dialect());
        if nars.is_empty() || nars.len() != narinfo.downloads().len() {
            let key = MirrorKey::of_narinfo(&narinfo.store_path().hash_part());
            faults.push((key.to_string(), MirrorFault::Method));
        }
        for nar in &nars {
            let (file, fault) = match &nar.key {
                Some(key) => (key, self.nar_fault(work, key, nar)?),
                None => {
                    let key = MirrorKey::of_narinfo(&narinfo.store_path().hash_part());
                    let fault = NarInfoFault::Url(nar.url.clone());
                    faults.push((key.to_string(), MirrorFault::NarInfo(fault)));
                    continue;
                }
            };
            faults.extend(fault.map(|fault| (file.to_string(), fault)));
        }
        Ok(())
    }

    /// What is wrong with the nar `key`.
    fn nar_fault(
        &self,
        work: &VerificationWork<'_>,
        key: &MirrorKey,
        nar: &NamedNar,
    ) -> Result<Option<MirrorFault>, MirrorFailure> {
        let claimed = nar.claims.expected_bytes();
        let listed = work.files.get(key).copied();
        let expected = listed.filter(|size| claimed.is_none_or(|claimed| claimed == *size));
        // It may have been written or replaced since it was listed.
        let size = match expected {
            Some(size) => Some(size),
            None => match self.target.current_size(key) {
                Ok(size) => size,
                Err(error) => return Ok(Some(MirrorFault::Unreadable(error))),
            },
        };
        let Some(found) = size else {
            return Ok(Some(MirrorFault::Missing));
        };
        if let Some(claimed) = claimed.filter(|claimed| *claimed != found) {
            return Ok(Some(MirrorFault::Size { found, claimed }));
        }

        let Some(copier) = self.copier else {
            return Ok(None);
        };
        let file = match self.target.file(key) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Some(MirrorFault::Missing)),
            Err(error) => return Ok(Some(MirrorFault::Unreadable(error))),
        };
        let checked = copier.check(file, &nar.claims);
        work.bytes.fetch_add(found, Ordering::Relaxed);
        match checked {
            Ok(_) => Ok(None),
            Err(error) if error.is_of_contents() => Ok(Some(MirrorFault::Contents(error))),
            Err(error) => match class_of_copy(&error) {
                FailureClass::Interrupted => Err(MirrorFailure::Interrupted),
                _ => Ok(Some(MirrorFault::Undecoded(error))),
            },
        }
    }
}
