//! Unpacks one item; on failure looks it up again, then uses other servers and other builds.
//!
//! A narinfo may outlive the nar it leads to, in a lookup cache or on a mirror, so that there is no
//! nar or another one; servers that were not needed for the lookup may have the same nar; and when
//! no server has it, another server may have an authorized narinfo for another build of the item.
//! Where the references of the item are settled already, another build must have the same ones.

use std::sync::Arc;

use crate::store::unpack::Checked;
use crate::substitute::download::retries::{FindSources, FoundSource, ItemRetries};
use crate::substitute::install::errors::ItemError;
use crate::substitute::install::installer::{Installer, UnpackRequest};
use crate::substitute::item_lookup::{Authority, ItemBuild, ItemLookup, ItemStatus, NarSource};
use crate::substitute::lookup::{LookupScope, Resolution, Resolver};

/// Which other builds of an item may take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AllowedBuilds {
    /// The next ones in the user's order, up to the first that has other references: for that
    /// one the caller has to plan again, see [`UnpackFailure::is_superseded`].
    UntilOtherReferences,
    /// All that have the same references.
    WithSameReferences,
    /// None: it has to be the same nar.
    None,
    /// All.
    Any,
}

/// Why an item could not be unpacked.
#[derive(Debug)]
pub(crate) struct UnpackFailure {
    /// What failed.
    pub(crate) error: ItemError,
    /// Whether another build, which has other references, comes next; the resolver has
    /// selected its narinfo.
    pub(crate) is_superseded: bool,
}

impl From<ItemError> for UnpackFailure {
    fn from(error: ItemError) -> Self {
        Self {
            error,
            is_superseded: false,
        }
    }
}

impl From<UnpackFailure> for ItemError {
    fn from(failure: UnpackFailure) -> Self {
        failure.error
    }
}

/// Unpacks the item's tree at its destination: from its sources; once more with what the servers
/// answer now, when a nar was missing or wrong; from servers that had not been asked; and then from
/// other builds as far as `builds` allows. When all fail, downloads that failed by an outage are
/// retried for a while. The result says which narinfo the tree was verified against.
///
/// # Errors
/// No server has a nar that an authorized narinfo describes, the policy refuses the item for what
/// servers have answered meanwhile, or the tree cannot be written; nothing is left behind.
pub(crate) fn unpack(
    installer: &Installer,
    resolver: &Arc<Resolver>,
    request: &UnpackRequest<'_>,
    builds: AllowedBuilds,
) -> Result<Checked, UnpackFailure> {
    let _span = tracing::debug_span!("item", path = request.item.base()).entered();
    let retries = &installer.new_retries(find_sources(resolver, request, builds));
    let checked = unpack_from_any(installer, resolver, request, builds, retries)?;
    if retries.has_searched() {
        refuse_by_policy(&look_up(resolver, request)?)?;
    }
    Ok(checked)
}

/// Unpacks the item's tree as [`unpack`] does, whatever servers have answered meanwhile.
fn unpack_from_any(
    installer: &Installer,
    resolver: &Arc<Resolver>,
    request: &UnpackRequest<'_>,
    builds: AllowedBuilds,
    retries: &Arc<ItemRetries>,
) -> Result<Checked, UnpackFailure> {
    // Servers that failed before are not all that may have the nar.
    let all_sources;
    let mut request = *request;
    if installer.is_unreliable(request.sources) {
        all_sources = same_build_sources(resolver, &request);
        if !all_sources.is_empty() {
            request.sources = &all_sources;
        }
    }

    let error = match from_known_sources(installer, resolver, &request, retries) {
        Ok(checked) => return Ok(checked),
        Err(error) => error,
    };
    let may_be_stale = error.may_be_stale();
    let unpacked = match error.is_of_servers() {
        true => from_other_servers(installer, resolver, &request, builds, error, retries),
        false => Err(error.into()),
    };

    // Nothing else is left than to wait for a server.
    let unpacked = match unpacked {
        Err(UnpackFailure {
            error,
            is_superseded: false,
        }) if error.is_of_servers() => installer
            .retry_failed_downloads(&request, error, retries)
            .map_err(UnpackFailure::from),
        other => other,
    };

    match unpacked {
        // What the servers answered now may be as wrong as what the lookup cache had.
        Err(failure) if may_be_stale || failure.error.may_be_stale() => {
            resolver.remove_cached(request.item.clone());
            Err(or_preparing(resolver, &request, failure))
        }
        unpacked => unpacked,
    }
}

/// The failure of an item whose nar was missing; unless a server is preparing it anew, which is
/// worth waiting for.
fn or_preparing(
    resolver: &Resolver,
    request: &UnpackRequest<'_>,
    failure: UnpackFailure,
) -> UnpackFailure {
    if failure.is_superseded || !failure.error.is_of_servers() {
        return failure;
    }
    let Ok(found) = look_up(resolver, request) else {
        return failure;
    };
    let mut lookups = found.items.iter();
    match lookups.find(|lookup| lookup.status == ItemStatus::Preparing) {
        Some(lookup) => ItemError::unavailable(lookup, &found.servers).into(),
        None => failure,
    }
}

/// Tries the sources of the request, and once more what the servers answer now.
fn from_known_sources(
    installer: &Installer,
    resolver: &Resolver,
    request: &UnpackRequest<'_>,
    retries: &Arc<ItemRetries>,
) -> Result<Checked, ItemError> {
    match installer.unpack(request, Vec::new(), retries) {
        Err(error) if error.may_be_stale() => {
            look_up_again(installer, resolver, request, error, retries)
        }
        unpacked => unpacked,
    }
}

fn look_up_again(
    installer: &Installer,
    resolver: &Resolver,
    request: &UnpackRequest<'_>,
    error: ItemError,
    retries: &Arc<ItemRetries>,
) -> Result<Checked, ItemError> {
    tracing::debug!("a nar is missing or wrong: looking the item up again");
    resolver.discard(request.item.clone());
    let found = look_up(resolver, request)?;
    refuse_by_policy(&found)?;
    let Some(found) = found.items.into_iter().next() else {
        return Err(error);
    };

    let authority = found
        .authority
        .as_ref()
        .and_then(Authority::verified_this_run);
    match authority.filter(|new| new.narinfo().is_equivalent(request.authorized.narinfo())) {
        Some(authorized) => {
            let request = UnpackRequest {
                authorized,
                sources: &found.sources,
                ..*request
            };
            installer.unpack(&request, error.into_attempts(), retries)
        }
        None => Err(error),
    }
}

/// What is known of the requested item by now.
fn look_up(resolver: &Resolver, request: &UnpackRequest<'_>) -> Result<Resolution, ItemError> {
    let items = vec![request.item.clone()];
    Ok(resolver.resolve(items, LookupScope::ItemsOnly)?)
}

/// Fails if the policy refuses the item for what servers answer now, whatever was authorized before.
fn refuse_by_policy(found: &Resolution) -> Result<(), ItemError> {
    let mut lookups = found.items.iter();
    match lookups.find(|lookup| lookup.policy_refusal().is_some()) {
        Some(refused) => Err(ItemError::unavailable(refused, &found.servers)),
        None => Ok(()),
    }
}

/// Tries servers that were not needed for the lookup, then other builds.
fn from_other_servers(
    installer: &Installer,
    resolver: &Resolver,
    request: &UnpackRequest<'_>,
    allowed: AllowedBuilds,
    error: ItemError,
    retries: &Arc<ItemRetries>,
) -> Result<Checked, UnpackFailure> {
    let found = resolver
        .resolve_on_all_servers(vec![request.item.clone()])
        .map_err(ItemError::from)?;
    refuse_by_policy(&found)?;
    let builds = found.items.into_iter().flat_map(ItemLookup::builds);
    let (same, others): (Vec<ItemBuild>, Vec<ItemBuild>) = builds.partition(|build| {
        build
            .authority
            .narinfo()
            .is_equivalent(request.authorized.narinfo())
    });

    let mut sources: Vec<NarSource> = same.into_iter().flat_map(|build| build.sources).collect();
    retries.note_search(sources.iter().map(|source| source.server));
    sources.retain(|source| {
        request
            .sources
            .iter()
            .all(|old| old.server != source.server)
    });
    if sources.is_empty() {
        return from_other_builds(
            installer, resolver, request, allowed, &others, error, retries,
        );
    }

    tracing::debug!(
        servers = sources.len(),
        "trying servers that were not needed before"
    );
    let same_build = UnpackRequest {
        sources: &sources,
        ..*request
    };

    match installer.unpack(&same_build, error.into_attempts(), retries) {
        Ok(checked) => Ok(checked),
        Err(error) => from_other_builds(
            installer, resolver, request, allowed, &others, error, retries,
        ),
    }
}

/// Tries the other `builds` in the user's order, as far as `allowed`.
fn from_other_builds(
    installer: &Installer,
    resolver: &Resolver,
    request: &UnpackRequest<'_>,
    allowed: AllowedBuilds,
    builds: &[ItemBuild],
    mut error: ItemError,
    retries: &Arc<ItemRetries>,
) -> Result<Checked, UnpackFailure> {
    let mut failed = vec![Arc::clone(request.authorized.narinfo())];
    for ItemBuild { authority, sources } in builds {
        if !error.is_of_servers() {
            return Err(error.into());
        }
        let Some(authorized) = authority.verified_this_run() else {
            continue;
        };

        let has_same_references = authorized
            .narinfo()
            .has_same_references(request.authorized.narinfo());
        let health = retries.health();
        let is_failing = sources
            .iter()
            .all(|source| health.is_failing(source.server));
        match allowed {
            AllowedBuilds::None => continue,
            // To wait for the first build is better than to wait for another one.
            _ if !has_same_references && is_failing => continue,
            AllowedBuilds::UntilOtherReferences if !has_same_references => {
                tracing::debug!("the next build has other references: it has to be planned");
                resolver.reject(request.item.clone(), failed);
                return Err(UnpackFailure {
                    error,
                    is_superseded: true,
                });
            }
            AllowedBuilds::WithSameReferences if !has_same_references => continue,
            _ => {}
        }

        tracing::debug!(nar_hash = %authorized.narinfo().nar_hash(), "trying another build");
        failed.push(Arc::clone(authorized.narinfo()));
        let other_build = UnpackRequest {
            authorized,
            sources,
            ..*request
        };
        error = match installer.unpack(&other_build, error.into_attempts(), retries) {
            Ok(checked) => return Ok(checked),
            Err(error) => error,
        };
    }
    Err(error.into())
}

/// Finds the servers that have the requested item in a build that `allowed` allows, for as long as
/// there is a resolver.
fn find_sources(
    resolver: &Arc<Resolver>,
    request: &UnpackRequest<'_>,
    allowed: AllowedBuilds,
) -> FindSources {
    let (resolver, item) = (Arc::downgrade(resolver), request.item.clone());
    let authorized = Arc::clone(request.authorized);
    Box::new(move || {
        let Some(resolver) = resolver.upgrade() else {
            return Vec::new();
        };
        // Without an answer the failures of the sources that are known stay.
        let found = resolver.resolve_on_all_servers(vec![item.clone()]);
        let found = found.map(|resolution| resolution.items).unwrap_or_default();
        let builds = found.into_iter().flat_map(ItemLookup::builds);
        let allowed = builds.filter(|build| {
            let (build, wanted) = (build.authority.narinfo(), authorized.narinfo());
            match allowed {
                AllowedBuilds::None => build.is_equivalent(wanted),
                AllowedBuilds::WithSameReferences => build.has_same_references(wanted),
                AllowedBuilds::UntilOtherReferences | AllowedBuilds::Any => true,
            }
        });
        allowed
            .flat_map(|build| {
                let is_same_build = build
                    .authority
                    .narinfo()
                    .is_equivalent(authorized.narinfo());
                build.sources.into_iter().map(move |source| FoundSource {
                    source,
                    is_same_build,
                })
            })
            .collect()
    })
}

/// The sources of the same build, of all servers that answer soon.
fn same_build_sources(resolver: &Resolver, request: &UnpackRequest<'_>) -> Vec<NarSource> {
    // Without an answer the sources that are known are used.
    let found = resolver.resolve_on_responsive_servers(vec![request.item.clone()]);
    let found = found.map(|resolution| resolution.items).unwrap_or_default();
    let builds = found.into_iter().flat_map(ItemLookup::builds);
    let same = builds.filter(|build| {
        build
            .authority
            .narinfo()
            .is_equivalent(request.authorized.narinfo())
    });
    same.flat_map(|build| build.sources).collect()
}
