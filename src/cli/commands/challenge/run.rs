//! Hashes local trees, requests the claims of all servers, and prints how they compare.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cli::args::ChallengeArgs;
use crate::cli::confinement::DiskChanges;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::format::store_path::StorePath;
use crate::store::Store;
use crate::substitute::challenge::{
    BuildInspection, ChallengeResult, CountedOrigins, InspectionTally, LocalBuild, LocalHash,
    NarComparison,
};
use crate::substitute::claims::ClaimRequests;
use crate::substitute::network::Network;

use super::challenged::{self, ChallengedItem};
use super::diff::find_differences;
use super::json::ChallengeJson;
use super::text;

/// Compares the builds of the items that `args` name.
///
/// # Errors
/// No server is configured, the store cannot be read, or the output cannot be written.
pub(crate) fn run(context: &Context, args: &ChallengeArgs) -> Result<Exit, CliError> {
    let paths = context.paths(&args.paths)?;
    context.need_servers()?;

    let store = match args.all_valid {
        true => Some(context.existing_store()?),
        false => context.store_to_read()?,
    };
    let builds = local_builds(store.as_ref(), paths, args)?;
    let network = context.network(DiskChanges::NONE)?;
    let items = challenge(context, store.as_ref(), &network, &builds, args.diff)?;

    let exit = challenged::exit(&items);
    let json = ChallengeJson::new(context, &items);
    if context.settings.json {
        context.output.json(&json)?;
    } else {
        let lines = items.iter().flat_map(|item| text::lines(context, item));
        context.output.lines(lines.map(Into::into))?;
        context
            .output
            .summary(&text::summary(&json.summary), &json.summary);
    }
    Ok(exit)
}

/// The items to compare, with what the store records of them. The logs of builds are looked for here,
/// before the sandbox hides them.
fn local_builds(
    store: Option<&Store>,
    mut paths: Vec<StorePath>,
    args: &ChallengeArgs,
) -> Result<Vec<LocalBuild>, CliError> {
    if let Some(store) = store.filter(|_| args.all_valid) {
        paths = store.all_valid()?;
    }
    let origins = match args.even_substituted {
        true => CountedOrigins::All,
        false => CountedOrigins::Logged,
    };
    Ok(LocalBuild::of_all(store, paths, origins)?)
}

fn challenge(
    context: &Context,
    store: Option<&Store>,
    network: &Arc<Network>,
    builds: &[LocalBuild],
    with_differences: bool,
) -> Result<Vec<ChallengedItem>, CliError> {
    let store_dir = context.settings.store_dir();
    let tally = InspectionTally::default();
    let comparison = NarComparison {
        retries: context.retries(network),
        dialect: store_dir.dialect(),
        bytes: tally.bytes(),
    };
    let mut inspection = BuildInspection {
        store,
        requests: ClaimRequests::open(network, store_dir.clone(), &*context.progress)
            .map_err(CliError::Network)?,
        threads: context.cores,
        progress: &*context.progress,
    };

    let mut all = Vec::with_capacity(builds.len());
    let mut failures = BTreeSet::new();
    inspection.inspect(builds, &tally, |inspected| {
        let mut item = ChallengedItem::new(&inspected);
        warn_about_servers(context, &item, &mut failures);
        warn_about_damage(context, &item);
        if let (true, ChallengeResult::Differ, Some(reference)) =
            (with_differences, item.result, item.reference)
        {
            item.differences = find_differences(&comparison, store, &inspected, reference);
        }
        all.push(item);
        Ok::<(), CliError>(())
    })?;
    Ok(all)
}

/// Reports servers that gave no answer, each reason once.
fn warn_about_servers(context: &Context, item: &ChallengedItem, failures: &mut BTreeSet<String>) {
    for (server, url) in context.settings.servers.enumerated() {
        let Err(outcome) = &item.claims[server] else {
            continue;
        };
        let text = format!("{}: {outcome}", url.as_str());
        if outcome.explains_absence()
            && failures.len() < FAILURES_SHOWN_MAX
            && failures.insert(text.clone())
        {
            context.output.warn(&text);
        }
    }
}

/// Different failures of servers that are reported.
const FAILURES_SHOWN_MAX: usize = 20;

/// Reports a tree that is not the registered one: the comparison says nothing about the build then.
fn warn_about_damage(context: &Context, item: &ChallengedItem) {
    if let LocalHash::Hashed {
        is_as_registered: false,
        ..
    } = item.local
    {
        let path = context.settings.store_dir().full_name(&item.item);
        context.output.warn(&format!(
            "{path} is damaged: its tree does not have the hash that the store database records"
        ));
    }
}
