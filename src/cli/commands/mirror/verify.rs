//! `subst mirror verify`: finds what is missing, wrong or left over in a mirror, and fetches it again.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cli::args::MirrorVerifyArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::format::store_path::{HashPart, StorePath};
use crate::substitute::download::checked_copy::NarCopier;
use crate::substitute::mirror::{
    Mirror, MirrorFailure, MirrorFinding, MirrorTarget, MirrorTrust, MirrorVerification,
    MirrorVerifier,
};
use crate::substitute::network::Network;

use super::run::trust;
use super::target::{self, MirrorAccess};
use super::verify_view::VerifiedMirror;
use super::{report, verify_view};

/// Verifies the mirror that `args` name, and repairs it if that is wanted.
///
/// # Errors
/// The settings do not allow it, there is no mirror, or the output cannot be written.
pub(crate) fn run(context: &Context, args: &MirrorVerifyArgs) -> Result<Exit, CliError> {
    let trust = trust(context)?;
    if args.repair {
        context.need_servers()?;
    }
    let access = match args.repair {
        true => MirrorAccess::Change,
        false => MirrorAccess::Read,
    };
    let (target, network) = match target::open(context, &args.to, access)? {
        Ok((Some(target), network)) => (target, network),
        Ok((None, _)) => return Err(target::no_mirror(&args.to)),
        Err(failure) => {
            return Ok(report::print_failure_to(
                context, VERIFY, &args.to, &failure,
            ));
        }
    };

    match verify(context, args, &trust, &target, &network)? {
        Ok(exit) => Ok(exit),
        Err(failure) => Ok(report::print_failure_to(
            context, VERIFY, &args.to, &failure,
        )),
    }
}

/// What fails if a verification does.
const VERIFY: &str = "verify";

fn verify(
    context: &Context,
    args: &MirrorVerifyArgs,
    trust: &MirrorTrust,
    target: &MirrorTarget,
    network: &Arc<Network>,
) -> Result<Result<Exit, MirrorFailure>, CliError> {
    let copier = context.nar_copier(network);
    let mut mirror = Mirror {
        network,
        trust,
        store_dir: context.settings.store_dir(),
        copier: context.nar_copier(network),
        methods: Vec::new(),
        is_repair: true,
        jobs: context.settings.jobs,
        recheck: HashSet::new(),
        progress: &*context.progress,
        cancel: &context.cancel,
    };
    if let Err(failure) = target::check(context, &args.to, target)? {
        return Ok(Err(failure));
    }

    context.cancel.begin_work();
    let verifier = verifier(context, args, trust, target, &copier);
    let found = match verifier.run() {
        Ok(found) => found,
        Err(failure) => return Ok(Err(failure)),
    };

    let mut view = VerifiedMirror::new(context, &found);
    let mut exit = Exit::Done;
    if args.repair && !found.findings.is_empty() {
        // For items that have no narinfo.
        mirror.methods.clone_from(&found.methods);
        match repair(context, args, target, &mut mirror, &verifier, &found) {
            Ok((remaining, repair_exit)) => {
                view.note_repairs(&remaining);
                exit = repair_exit;
            }
            Err(failure) => {
                exit = report::print_failure_to(context, "repair", &args.to, &failure);
            }
        }
    }
    verify_view::print(context, args, &mut view)?;
    Ok(Ok(exit.max(view.exit())))
}

fn verifier<'a>(
    context: &'a Context,
    args: &MirrorVerifyArgs,
    trust: &'a MirrorTrust,
    target: &'a MirrorTarget,
    copier: &'a NarCopier,
) -> MirrorVerifier<'a> {
    MirrorVerifier {
        target,
        trust,
        store_dir: context.settings.store_dir(),
        copier: args.deep.then_some(copier),
        jobs: match args.deep {
            true => context.settings.jobs.min(context.cores),
            false => context.cores,
        },
        progress: &*context.progress,
        cancel: &context.cancel,
    }
}

/// Fetches again what has a fault: what still has one, and how the run ended.
fn repair(
    context: &Context,
    args: &MirrorVerifyArgs,
    target: &MirrorTarget,
    mirror: &mut Mirror<'_>,
    verifier: &MirrorVerifier<'_>,
    found: &MirrorVerification,
) -> Result<(Vec<MirrorFinding>, Exit), MirrorFailure> {
    let items: HashSet<StorePath> = found.items_to_fetch().collect();
    mirror.recheck.clone_from(&items);
    let mut items: Vec<StorePath> = items.into_iter().collect();
    items.sort_unstable();
    let report = mirror.run(target, items)?;
    report::print_skipped(context, &args.to, &report);

    let wrong: HashSet<HashPart> = found.wrong_items().collect();
    let again = verifier.run_again(&wrong)?;
    Ok((again, report::exit(&report)))
}
