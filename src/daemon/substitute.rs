//! `--substitute`: unpacks one item after another at the destination that the daemon names.
//!
//! The daemon holds the item's lock and a temp root, and registers the item after the reply; so the
//! tree is unpacked directly at its destination, which no other process touches meanwhile.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::format::nar::EntryName;
use crate::format::store_path::StoreDir;
use crate::store::unpack::{Destination, NarMismatch, open_directory};
use crate::store::{Links, StoreError, remove_tree};
use crate::substitute::chain;
use crate::substitute::install::item::AllowedBuilds;
use crate::substitute::install::{AttemptError, AvailableItem, Installer, ItemError};
use crate::substitute::lookup::Resolver;
use crate::substitute::preparation::PreparationWait;
use crate::substitute::progress::with_ticks;

use super::item_sync::ItemSync;
use super::log::ClientLog;
use super::progress::{ClientProgress, INTERVAL};
use super::reply::SubstituteReply;
use super::request::{RequestError, SubstituteRequest};
use super::serve::{RequestHandler, ServeError};

/// Why a substitution failed.
#[derive(Debug, thiserror::Error)]
enum SubstituteError {
    /// The helper cannot start to work.
    #[error("cannot start the helper")]
    Prepare(#[source] Box<dyn Error>),
    /// The item cannot be downloaded.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// What an earlier failure left at the destination cannot be removed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The destination is no name of a file.
    #[error("the destination does not name a file")]
    Destination,
}

impl SubstituteError {
    /// The same error without what may be quoted from the files of `file:` servers, which clients
    /// may not have the right to read.
    fn without_file_texts(mut self) -> Self {
        if let Self::Item(error) = &mut self {
            error.hide_file_texts();
        }
        self
    }
}

/// Makes what carries out requests, when the first valid one is known.
type Prepare<'a> =
    Box<dyn FnMut(&SubstituteRequest) -> Result<SubstituteHelper, Box<dyn Error>> + 'a>;

/// Handles `substitute`.
pub(crate) struct SubstituteHandler<'a> {
    store_dir: StoreDir,
    log: Arc<ClientLog>,
    prepare: Prepare<'a>,
    helper: Option<SubstituteHelper>,
}

/// Carries out substitutions.
pub(crate) struct SubstituteHelper {
    /// The store that items are for.
    pub(crate) store_dir: StoreDir,
    /// Looks up items.
    pub(crate) resolver: Arc<Resolver>,
    /// Downloads and unpacks items.
    pub(crate) installer: Installer,
    /// How long an item is waited for that servers are preparing.
    pub(crate) wait: Duration,
    /// Where files of items in the store are deduplicated, if they are to be.
    pub(crate) links: Option<Arc<Links>>,
    /// Brings items to the disk.
    pub(crate) sync: ItemSync,
    /// Reports the progress of downloads to the client.
    pub(crate) progress: Arc<ClientProgress>,
}

impl<'a> SubstituteHandler<'a> {
    /// A handler of requests for items of `store_dir`. The first valid request says where items are
    /// unpacked, which `prepare` needs to know.
    pub(crate) fn new(store_dir: StoreDir, log: Arc<ClientLog>, prepare: Prepare<'a>) -> Self {
        Self {
            store_dir,
            log,
            prepare,
            helper: None,
        }
    }

    fn substitute(
        &mut self,
        wanted: &SubstituteRequest,
    ) -> Result<SubstituteReply, SubstituteError> {
        let helper = match &mut self.helper {
            Some(helper) => helper,
            none => none.insert((self.prepare)(wanted).map_err(SubstituteError::Prepare)?),
        };
        helper.substitute(wanted)
    }
}

impl RequestHandler for SubstituteHandler<'_> {
    fn handle(&mut self, line: Result<&[u8], RequestError>) -> Result<String, ServeError> {
        let wanted = line.and_then(|line| SubstituteRequest::parse(line, &self.store_dir));
        let reply = match wanted {
            Ok(wanted) => self.substitute(&wanted).unwrap_or_else(|error| {
                let name = self.store_dir.full_name(&wanted.item);
                let reason = failure_text(&error);
                self.log
                    .error(&format!("cannot substitute {name}: {reason}"));
                failure_reply(&error)
            }),
            Err(error) => {
                self.log.error(&error.to_string());
                SubstituteReply::NotFound
            }
        };
        Ok(reply.to_string())
    }
}

impl SubstituteHelper {
    /// Substitutes the item while its progress is reported to the client.
    fn substitute(&self, wanted: &SubstituteRequest) -> Result<SubstituteReply, SubstituteError> {
        let destination = wanted.destination.to_string_lossy();
        self.progress
            .during_substitution(&destination, || {
                with_ticks(
                    INTERVAL,
                    || self.installer.report_progress(),
                    || self.unpack_when_ready(wanted),
                )
            })
            .map_err(SubstituteError::without_file_texts)
    }

    /// Unpacks the item, after a while if a server that had its nar is preparing it anew.
    fn unpack_when_ready(
        &self,
        wanted: &SubstituteRequest,
    ) -> Result<SubstituteReply, SubstituteError> {
        let mut wait = PreparationWait::new(self.wait, self.installer.cancel.clone());
        loop {
            match self.unpack(wanted) {
                Err(SubstituteError::Item(error)) if error.is_preparing() && wait.has_time() => {
                    wait.wait(1, &*self.progress);
                    self.resolver.discard(wanted.item.clone());
                }
                unpacked => return unpacked,
            }
        }
    }

    fn unpack(&self, wanted: &SubstituteRequest) -> Result<SubstituteReply, SubstituteError> {
        let (installer, resolver) = (&self.installer, &self.resolver);
        let item = AvailableItem::find(installer, resolver, &wanted.item)?;
        let destination = empty_destination(wanted)?;
        let links = self.links_for(wanted);

        // guix-daemon registers the references that `info` told it.
        let builds = AllowedBuilds::WithSameReferences;
        let sync = self.sync.mode();
        let checked = item.unpack(
            installer,
            resolver,
            &destination,
            links.as_ref(),
            builds,
            sync,
        )?;
        self.sync.before_reply(&destination)?;
        installer.item_is_complete(&wanted.item);
        let authorized = checked.keep();
        let narinfo = authorized.narinfo();

        Ok(SubstituteReply::Success {
            nar_hash: narinfo.nar_hash(),
            nar_size: narinfo.nar_size(),
        })
    }

    /// Where the item's files are deduplicated. A repair is made at another name in the store:
    /// there the file that a `.links` entry names may be the damaged one. What goes elsewhere
    /// shares nothing with the store.
    fn links_for(&self, wanted: &SubstituteRequest) -> Option<Arc<Links>> {
        let links = self.links.as_ref()?;
        let destination = wanted.destination.as_path();
        if destination.as_os_str() == self.store_dir.full_name(&wanted.item).as_str() {
            return Some(Arc::clone(links));
        }

        let is_in_store = destination.parent() == Some(Path::new(self.store_dir.as_str()));
        is_in_store.then(|| Arc::new(links.for_repair()))
    }
}

/// What the daemon is told about a failure.
fn failure_reply(error: &SubstituteError) -> SubstituteReply {
    let SubstituteError::Item(ItemError::AllFailed(attempts)) = error else {
        return SubstituteReply::NotFound;
    };
    let mismatches = attempts.iter().map(|attempt| match attempt.error {
        AttemptError::Mismatch(NarMismatch::Hash { expected, found }) => {
            Some(SubstituteReply::HashMismatch { expected, found })
        }
        _ => None,
    });
    let all: Option<Vec<SubstituteReply>> = mismatches.collect();
    all.and_then(|all| all.last().copied())
        .unwrap_or(SubstituteReply::NotFound)
}

/// The reason for the client; each failed download was reported when it failed.
fn failure_text(error: &SubstituteError) -> String {
    match error {
        SubstituteError::Item(error) => item_failure_text(error),
        other => chain(other),
    }
}

fn item_failure_text(error: &ItemError) -> String {
    match error {
        ItemError::AllFailed(_) => "every download failed".to_owned(),
        ItemError::OtherBuild { first, next } => {
            let (first, next) = (item_failure_text(first), item_failure_text(next));
            format!("{first}; another server's build: {next}")
        }
        other => chain(other),
    }
}

/// The place for the tree, with whatever an earlier failure left there removed.
fn empty_destination(wanted: &SubstituteRequest) -> Result<Destination, SubstituteError> {
    let path = &wanted.destination;
    let name = path
        .file_name()
        .and_then(|name| EntryName::new(name.as_encoded_bytes()));
    let (Some(name), Some(text)) = (name, path.file_name().and_then(|name| name.to_str())) else {
        return Err(SubstituteError::Destination);
    };

    let parent = wanted.parent();
    let directory = open_directory(parent).map_err(|source| ItemError::Open {
        path: parent.to_owned(),
        source,
    })?;
    remove_tree(parent, text)?;

    Ok(Destination::new(directory, parent.to_owned(), name))
}
