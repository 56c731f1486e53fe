//! Compares the local trees with the pool's narinfos, and signs those that agree.

use std::sync::Arc;

use crate::cli::args::EndorseArgs;
use crate::cli::confinement::DiskChanges;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::format::server_list::PerServer;
use crate::format::server_url::ServerUrl;
use crate::store::Store;
use crate::substitute::challenge::{BuildInspection, CountedOrigins, InspectionTally, LocalBuild};
use crate::substitute::claims::ClaimRequests;
use crate::substitute::endorse::{Endorsement, EndorsementKey};
use crate::substitute::network::Network;

use super::destination::EndorsementDirectory;
use super::report::{self, EndorsedItem};
use super::{secret_key, withdrawal};

/// Writes a signed narinfo for each of the items that `args` name and the pool has as well, or removes those
/// of earlier runs.
///
/// # Errors
/// The key or the store cannot be read, or the directory cannot be written to.
pub(crate) fn run(context: &mut Context, args: &EndorseArgs) -> Result<Exit, CliError> {
    let paths = context.paths(&args.paths)?;
    let (Some(key), Some(nars)) = (&args.key, &args.nars) else {
        return withdrawal::run(context, &args.to, &paths);
    };
    let pool = parse_pool(nars)?;
    let store_dir = context.settings.store_dir().clone();
    let key = secret_key::read(key, store_dir.dialect())?;

    let store = context.store_to_read()?;
    let origins = match args.even_substituted {
        true => CountedOrigins::All,
        false => CountedOrigins::Built,
    };
    let builds = LocalBuild::of_all(store.as_ref(), paths, origins)?;
    let directory = EndorsementDirectory::prepare(&args.to, &store_dir, &key)?;

    // The pool is the only server of this run.
    context.settings.servers = Arc::new(PerServer::from(vec![pool.clone()]));
    let network = context.network(DiskChanges {
        store: false,
        directories: &[&args.to],
    })?;
    let writer = EndorsementWriter {
        context,
        key,
        pool,
        directory,
    };
    let items = writer.endorse(store.as_ref(), &network, &builds)?;
    report::print(context, &args.to, &items)
}

/// The URL of the pool, from which others download.
fn parse_pool(text: &str) -> Result<ServerUrl, CliError> {
    let pool =
        ServerUrl::parse(text).map_err(|error| CliError::Usage(format!("--nars: {error}")))?;
    if pool.is_file() {
        let text = "--nars: narinfos refer to the nars by this URL, so it has to begin with http:// or https://";
        return Err(CliError::Usage(text.to_owned()));
    }
    Ok(pool)
}

struct EndorsementWriter<'a> {
    context: &'a Context,
    key: EndorsementKey,
    pool: ServerUrl,
    directory: EndorsementDirectory,
}

impl EndorsementWriter<'_> {
    fn endorse(
        &self,
        store: Option<&Store>,
        network: &Network,
        builds: &[LocalBuild],
    ) -> Result<Vec<EndorsedItem>, CliError> {
        let store_dir = self.context.settings.store_dir();
        let mut inspection = BuildInspection {
            store,
            requests: ClaimRequests::open(network, store_dir.clone(), &*self.context.progress)
                .map_err(CliError::Network)?,
            threads: self.context.cores,
            progress: &*self.context.progress,
        };

        let mut all = Vec::with_capacity(builds.len());
        inspection.inspect(builds, &InspectionTally::default(), |inspected| {
            let Some(claim) = inspected.claims.first() else {
                return Ok(());
            };
            let item = inspected.build.item.clone();
            let narinfo = Endorsement::of(inspected.build, &inspected.local, claim, &self.pool)
                .and_then(|it| it.narinfo(&self.key, &self.pool, store_dir));
            let (result, outdated) = match narinfo {
                Ok(text) => (Ok(self.directory.write_narinfo(&item, &text)?), None),
                Err(reason) if reason.outdates_endorsements() => {
                    (Err(reason), self.directory.find_narinfo(&item))
                }
                Err(reason) => (Err(reason), None),
            };
            all.push(EndorsedItem {
                item,
                result,
                outdated,
            });
            Ok::<(), CliError>(())
        })?;
        Ok(all)
    }
}
