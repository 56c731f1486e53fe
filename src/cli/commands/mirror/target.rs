//! Opens the place of a mirror, and confines the process to what the copy needs.

use std::path::Path;
use std::sync::Arc;

use crate::cli::confinement::DiskChanges;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::mirror_place::MirrorPlace;
use crate::cli::process::mode_of_caller_files;
use crate::format::server_url::ServerUrl;
use crate::substitute::mirror::{
    MirrorFailure, MirrorTarget, TargetError, UploadSpool, is_mirror, other_store,
};
use crate::substitute::network::{Network, retry_observer};

/// What is done with a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MirrorAccess {
    /// It is only read.
    Read,
    /// It is changed, and created if need be.
    Write,
    /// It is changed, and not created.
    Change,
}

/// The mirror, `None` if there is none and it is not created; and the network.
pub(super) type OpenedTarget = (Option<MirrorTarget>, Arc<Network>);

/// Opens the mirror at `place`. The process is confined from then on.
///
/// # Errors
/// The sandbox is required and not supported; or the mirror cannot be opened.
pub(super) fn open(
    context: &Context,
    place: &MirrorPlace,
    access: MirrorAccess,
) -> Result<Result<OpenedTarget, MirrorFailure>, CliError> {
    match place {
        MirrorPlace::Directory(path) => open_directory(context, path, access),
        MirrorPlace::Bucket(server) => open_bucket(context, server, access),
    }
}

fn open_directory(
    context: &Context,
    path: &Path,
    access: MirrorAccess,
) -> Result<Result<OpenedTarget, MirrorFailure>, CliError> {
    let target = match open_target(path, access) {
        Ok(target) => target,
        Err(failure) => return Ok(Err(failure)),
    };

    let directories: Vec<&Path> = target.iter().map(|_| path).collect();
    let network = context.network(DiskChanges {
        store: false,
        directories: &directories,
    })?;
    Ok(Ok((target, network)))
}

fn open_target(path: &Path, access: MirrorAccess) -> Result<Option<MirrorTarget>, MirrorFailure> {
    let to_read = match access {
        MirrorAccess::Write => None,
        MirrorAccess::Read | MirrorAccess::Change => MirrorTarget::open_to_read(path)?,
    };
    let is_changed = match (access, &to_read) {
        (MirrorAccess::Read, _) | (MirrorAccess::Change, None) => false,
        (MirrorAccess::Write, _) => true,
        // A directory of something else stays as it is.
        (MirrorAccess::Change, Some(found)) => is_mirror(found)?,
    };
    match is_changed {
        false => Ok(to_read),
        true => Ok(Some(MirrorTarget::open(path, mode_of_caller_files())?)),
    }
}

fn open_bucket(
    context: &Context,
    server: &ServerUrl,
    access: MirrorAccess,
) -> Result<Result<OpenedTarget, MirrorFailure>, CliError> {
    let spool = match access {
        MirrorAccess::Read => None,
        MirrorAccess::Write | MirrorAccess::Change => {
            let (base, cache) = context.spool_places().ok_or_else(no_cache_directory)?;
            match UploadSpool::open(&base, &cache, server) {
                Ok(spool) => Some(spool),
                Err(error) => return Ok(Err(error.into())),
            }
        }
    };
    let network = context.network(DiskChanges::NONE)?;
    let opened = open_network_bucket(context, &network, server, spool);
    Ok(opened.map(|target| (Some(target), network)))
}

/// Opens the bucket `server`; with a `spool`, to write to it.
///
/// # Errors
/// It cannot be listed, or another process writes to it.
pub(super) fn open_network_bucket(
    context: &Context,
    network: &Network,
    server: &ServerUrl,
    spool: Option<UploadSpool>,
) -> Result<MirrorTarget, MirrorFailure> {
    let client = network.client_for(server.base());
    let client = client.map_err(MirrorFailure::Network)?;
    // As long as the servers are waited for.
    let limits = context.settings.retry_limits.iter();
    let retry_time = limits.map(|limits| limits.time).max().unwrap_or_default();
    let observer = retry_observer(Arc::clone(&context.progress), server.host_and_port());
    let bucket = client.bucket(server, retry_time, Some(observer), context.cancel.flag());
    let bucket = bucket.map_err(|error| TargetError::of_bucket("open", "objects")(error))?;
    Ok(MirrorTarget::open_bucket(client, bucket, spool)?)
}

/// Checks that `target` is a mirror, and for the store in use.
///
/// # Errors
/// It is not, so that nothing of it may be changed; or it cannot be read.
pub(super) fn check(
    context: &Context,
    to: &MirrorPlace,
    target: &MirrorTarget,
) -> Result<Result<(), MirrorFailure>, CliError> {
    match (is_mirror(target), is_for_store_in_use(context, to, target)) {
        (Ok(true), checked) => checked,
        (Ok(false), _) => Err(CliError::Usage(format!(
            "--to: {to} is not a mirror: it has neither a nix-cache-info nor narinfos"
        ))),
        (Err(failure), _) => Ok(Err(failure)),
    }
}

/// Checks that `target` is for the store in use, if it says so.
///
/// # Errors
/// It is for another store, or it cannot be read.
pub(super) fn is_for_store_in_use(
    context: &Context,
    to: &MirrorPlace,
    target: &MirrorTarget,
) -> Result<Result<(), MirrorFailure>, CliError> {
    let store_dir = context.settings.store_dir();
    match other_store(target, store_dir) {
        Ok(None) => Ok(Ok(())),
        Ok(Some(theirs)) => Err(CliError::Usage(format!(
            "{to} is a mirror for `{0}`, not for {1}: use --store-dir {0}, or give another place with --to",
            theirs.escape_debug(),
            store_dir.as_str()
        ))),
        Err(failure) => Ok(Err(failure)),
    }
}

/// There is no mirror `to`.
pub(super) fn no_mirror(to: &MirrorPlace) -> CliError {
    CliError::Usage(format!("--to: there is no directory {to}"))
}

fn no_cache_directory() -> CliError {
    let text = "nars are kept in the cache directory until they are sent, and none can be written to: \
                name one with XDG_CACHE_HOME";
    CliError::Usage(text.to_owned())
}
