//! `subst mirror verify`: finds what is missing, wrong or left over in a mirror, and fetches it again.

use std::collections::HashSet;
use std::path::Path;

use crate::cli::args::MirrorVerifyArgs;
use crate::cli::confinement::DiskChanges;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::mirror_place::MirrorPlace;
use crate::cli::output::shown_path;
use crate::cli::process::mode_of_caller_files;
use crate::format::store_path::{HashPart, StorePath};
use crate::substitute::download::checked_copy::NarCopier;
use crate::substitute::mirror::{
    Mirror, MirrorFailure, MirrorFinding, MirrorTarget, MirrorTrust, MirrorVerification,
    MirrorVerifier, other_store,
};

use super::run::{other_store_error, trust};
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
    let opened = match args.repair && args.to.exists() {
        true => MirrorTarget::open(&args.to, mode_of_caller_files()).map(Some),
        false => MirrorTarget::open_to_read(&args.to),
    };
    let target = match opened {
        Ok(Some(target)) => target,
        Ok(None) => {
            let text = format!("--to: there is no directory {}", shown_path(&args.to));
            return Err(CliError::Usage(text));
        }
        Err(error) => {
            return Ok(report::print_failure_to(
                context,
                VERIFY,
                &place(args),
                &error.into(),
            ));
        }
    };

    match verify(context, args, &trust, &target) {
        Ok(Ok(exit)) => Ok(exit),
        Ok(Err(failure)) => Ok(report::print_failure_to(
            context,
            VERIFY,
            &place(args),
            &failure,
        )),
        Err(error) => Err(error),
    }
}

/// The mirror that is verified.
fn place(args: &MirrorVerifyArgs) -> MirrorPlace {
    MirrorPlace::Directory(args.to.clone())
}

/// What fails if a verification does.
const VERIFY: &str = "verify";

fn verify(
    context: &Context,
    args: &MirrorVerifyArgs,
    trust: &MirrorTrust,
    target: &MirrorTarget,
) -> Result<Result<Exit, MirrorFailure>, CliError> {
    let directories: [&Path; 1] = [&args.to];
    let network = context.network(DiskChanges {
        store: false,
        directories: &directories,
    })?;
    let copier = context.nar_copier(&network);
    let mut mirror = Mirror {
        network: &network,
        trust,
        store_dir: context.settings.store_dir(),
        copier: context.nar_copier(&network),
        methods: Vec::new(),
        jobs: context.settings.jobs,
        recheck: HashSet::new(),
        progress: &*context.progress,
        cancel: &context.cancel,
    };
    match other_store(target, mirror.store_dir) {
        Ok(None) => {}
        Ok(Some(theirs)) => {
            return Err(other_store_error(context, &place(args), &theirs));
        }
        Err(failure) => return Ok(Err(failure)),
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
        mirror.methods.clone_from(&found.methods);
        match repair(context, args, target, &mut mirror, &verifier, &found) {
            Ok((remaining, repair_exit)) => {
                view.note_repairs(&remaining);
                exit = repair_exit;
            }
            Err(failure) => {
                exit = report::print_failure_to(context, "repair", &place(args), &failure);
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
    report::print_skipped(context, &place(args), &report);

    let wrong: HashSet<HashPart> = found.wrong_items().collect();
    let again = verifier.run_again(&wrong)?;
    Ok((again, report::exit(&report)))
}
