//! Opens the place of a mirror, and confines the process to what the copy needs.

use std::path::Path;
use std::sync::Arc;

use crate::cli::confinement::DiskChanges;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::mirror_place::MirrorPlace;
use crate::cli::process::mode_of_caller_files;
use crate::format::server_url::ServerUrl;
use crate::substitute::mirror::{MirrorFailure, MirrorTarget, TargetError, UploadSpool};
use crate::substitute::network::Network;

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
    let is_changed = match access {
        MirrorAccess::Read => false,
        MirrorAccess::Write => true,
        MirrorAccess::Change => path.exists(),
    };
    let target = match is_changed {
        false => MirrorTarget::open_to_read(path),
        true => MirrorTarget::open(path, mode_of_caller_files()).map(Some),
    };
    let target = match target {
        Ok(target) => target,
        Err(error) => return Ok(Err(error.into())),
    };

    let directories: Vec<&Path> = target.iter().map(|_| path).collect();
    let network = context.network(DiskChanges {
        store: false,
        directories: &directories,
    })?;
    Ok(Ok((target, network)))
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
    let bucket = client.bucket(server, retry_time, context.cancel.flag());
    let bucket = bucket.map_err(|error| TargetError::of_bucket("open", "objects")(error))?;
    Ok(MirrorTarget::open_bucket(client, bucket, spool)?)
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
