//! Opens the mirror, confines the process, and copies what the mirror lacks.

use std::collections::HashSet;

use crate::cli::args::MirrorArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::mirror_place::MirrorPlace;
use crate::format::store_path::StorePath;
use crate::substitute::mirror::{Mirror, MirrorFailure, MirrorReport, MirrorTarget, MirrorTrust};
use crate::substitute::preparation::PreparationWait;
use crate::trust::acl::AuthorizedKeys;

use super::target::{self, MirrorAccess};
use super::{items, report};

/// Copies the items that `args` name.
///
/// # Errors
/// The settings or the arguments do not allow it, or the mirror cannot be written to.
pub(crate) fn run(context: &Context, args: &MirrorArgs) -> Result<Exit, CliError> {
    context.need_servers()?;
    let mut items = items::named(context, args)?;
    let trust = trust(context)?;

    let access = match args.dry_run {
        true => MirrorAccess::Read,
        false => MirrorAccess::Write,
    };
    let (target, network) = match target::open(context, &args.to, access)? {
        Ok(opened) => opened,
        Err(failure) => return Ok(report::print_failure(context, args, &failure, 0)),
    };
    if args.all {
        match items::of_buckets(context, &network) {
            Ok(more) => items.extend(more),
            Err((server, failure)) => {
                let place = MirrorPlace::Bucket(server);
                return Ok(report::print_failure_to(context, "list", &place, &failure));
            }
        }
        items.sort_unstable();
        items.dedup();
    }
    let mirror = Mirror {
        network: &network,
        trust: &trust,
        store_dir: context.settings.store_dir(),
        copier: context.nar_copier(&network),
        methods: args.compression.clone(),
        is_repair: false,
        recheck: HashSet::new(),
        jobs: context.settings.jobs,
        progress: &*context.progress,
        cancel: &context.cancel,
    };

    let checked = match &target {
        Some(target) => target::is_for_store_in_use(context, &args.to, target)?,
        None => Ok(()),
    };
    let copied = checked.and_then(|()| {
        context.cancel.begin_work();
        copy(context, &mirror, args, target.as_ref(), items)
    });
    match copied {
        Ok(report) => report::print(context, args, &report),
        Err(failure) => {
            let kept = target.as_ref().map_or(0, MirrorTarget::kept_bytes);
            Ok(report::print_failure(context, args, &failure, kept))
        }
    }
}

fn copy(
    context: &Context,
    mirror: &Mirror<'_>,
    args: &MirrorArgs,
    target: Option<&MirrorTarget>,
    items: Vec<StorePath>,
) -> Result<MirrorReport, MirrorFailure> {
    match target.filter(|_| !args.dry_run) {
        Some(target) => {
            let wait = PreparationWait::new(context.settings.wait, context.cancel.clone());
            mirror.run_with_waits(target, items, wait)
        }
        None => mirror.dry_run(target, items),
    }
}

/// Whose narinfos are copied. Others get them from the mirror, so signatures count even where this
/// machine itself does without.
pub(super) fn trust(context: &Context) -> Result<MirrorTrust, CliError> {
    let keys = context.keys()?;
    if matches!(keys, AuthorizedKeys::AllowUnauthenticated) {
        let text =
            "a mirror has authorized narinfos only: unset GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES";
        return Err(CliError::Usage(text.to_owned()));
    }
    let (policy, faults) = context.policy(&keys);
    for fault in faults {
        context.output.warn(&fault.to_string());
    }
    Ok(MirrorTrust { keys, policy })
}
