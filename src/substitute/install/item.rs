//! An item whose nar cannot be downloaded as its narinfo says: look it up again, use other servers.
//!
//! A narinfo may outlive the nar it leads to, in a lookup cache or on a mirror; servers that were
//! not needed for the lookup may have the same nar; and when nobody has it, another server may
//! have an authorized narinfo for another build of the item. Where the references of the item
//! are settled already, another build must have the same ones.

use std::sync::Arc;

use crate::store::unpack::Checked;
use crate::substitute::download::retries::{FindServers, Retries};
use crate::substitute::install::errors::ItemError;
use crate::substitute::install::installer::{Installer, Order};
use crate::substitute::lookup::{Resolver, Walk};
use crate::substitute::outcome::{Authority, Build, Found, Source};
use crate::trust::verdict::AuthorizedNarInfo;

/// Which other builds of an item may take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builds {
    /// The next ones in the user's order, up to the first that has other references: for that
    /// one the caller has to plan again, see [`Failure::is_superseded`].
    UntilOtherReferences,
    /// All that have the same references.
    WithSameReferences,
    /// All.
    Any,
}

/// Why an item could not be unpacked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What failed.
    pub(crate) error: ItemError,
    /// Whether another build, which has other references, comes next; the resolver goes by its
    /// narinfo from now on.
    pub(crate) is_superseded: bool,
}

impl From<ItemError> for Failure {
    fn from(error: ItemError) -> Self {
        Self {
            error,
            is_superseded: false,
        }
    }
}

impl From<Failure> for ItemError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Makes the item's tree at its destination: from its sources; once more with what the servers
/// answer now, when a nar was gone though a narinfo led to it; from servers that had not been
/// asked; and then from other builds as far as `builds` allows. When all fail, downloads that
/// failed by an outage are retried for a while. The result says which narinfo the tree was
/// verified against.
///
/// # Errors
/// No server has a nar that an authorized narinfo describes, or the tree cannot be written;
/// nothing is left behind.
pub(crate) fn unpack(
    installer: &Installer,
    resolver: &Arc<Resolver>,
    order: &Order<'_>,
    builds: Builds,
) -> Result<Checked, Failure> {
    let retries = &installer.retries(find_servers(resolver, order, builds));
    let all_sources;
    let mut order = *order;
    if installer.is_unreliable(order.sources) {
        all_sources = same_build_sources(resolver, &order);
        if !all_sources.is_empty() {
            order.sources = &all_sources;
        }
    }
    let order = &order;

    let mut unpacked = installer.unpack(order, Vec::new(), retries);
    if let Err(error) = unpacked {
        unpacked = match error.is_stale() {
            true => look_up_again(installer, resolver, order, error, retries),
            false => Err(error),
        };
    }
    let error = match unpacked {
        Ok(checked) => return Ok(checked),
        Err(error) => error,
    };

    let is_stale = error.is_stale();
    let unpacked = match error.is_of_servers() {
        true => from_other_servers(installer, resolver, order, builds, error, retries),
        false => Err(error.into()),
    };
    let unpacked = match unpacked {
        Err(Failure {
            error,
            is_superseded: false,
        }) if error.is_of_servers() => installer
            .retry(order, error, retries)
            .map_err(Failure::from),
        other => other,
    };
    if is_stale
        || unpacked
            .as_ref()
            .is_err_and(|failure| failure.error.is_stale())
    {
        // What the servers answered now is as wrong as what the lookup cache had.
        resolver.disbelieve(order.item.clone());
    }
    unpacked
}

fn look_up_again(
    installer: &Installer,
    resolver: &Resolver,
    order: &Order<'_>,
    error: ItemError,
    retries: &Arc<Retries>,
) -> Result<Checked, ItemError> {
    resolver.forget(order.item.clone());
    let found = resolver.resolve(vec![order.item.clone()], Walk::JustThese);
    let Some(found) = found.items.into_iter().next() else {
        return Err(error);
    };
    let authority = found.authority.as_ref().and_then(Authority::checked);
    match authority.filter(|new| is_same_build(new, order.authorized)) {
        Some(authorized) => {
            let order = Order {
                authorized,
                sources: &found.sources,
                ..*order
            };
            installer.unpack(&order, error.into_attempts(), retries)
        }
        None => Err(error),
    }
}

fn from_other_servers(
    installer: &Installer,
    resolver: &Resolver,
    order: &Order<'_>,
    allowed: Builds,
    mut error: ItemError,
    retries: &Arc<Retries>,
) -> Result<Checked, Failure> {
    let found = resolver.resolve_everywhere(order.item.clone());
    let builds = found.items.into_iter().flat_map(Found::builds);
    let (same, others): (Vec<Build>, Vec<Build>) =
        builds.partition(|build| is_same_build(build.authority.authorized(), order.authorized));

    let is_new = |source: &Source| order.sources.iter().all(|old| old.server != source.server);
    let sources: Vec<Source> = same
        .into_iter()
        .flat_map(|build| build.sources)
        .filter(is_new)
        .collect();
    if !sources.is_empty() {
        let order = Order {
            sources: &sources,
            ..*order
        };
        error = match installer.unpack(&order, error.into_attempts(), retries) {
            Ok(checked) => return Ok(checked),
            Err(error) => error,
        };
    }

    let mut failed = vec![Arc::clone(order.authorized.narinfo())];
    for Build { authority, sources } in &others {
        if !error.is_of_servers() {
            return Err(error.into());
        }
        let Some(authorized) = authority.checked() else {
            continue;
        };
        let has_same_references = have_same_references(authorized, order.authorized);
        let is_failing = |source: &Source| retries.health().is_failing(source.server);
        match allowed {
            // To wait for the first build is better than to wait for another one.
            _ if !has_same_references && sources.iter().all(is_failing) => continue,
            Builds::UntilOtherReferences if !has_same_references => {
                resolver.reject(order.item.clone(), failed);
                return Err(Failure {
                    error,
                    is_superseded: true,
                });
            }
            Builds::WithSameReferences if !has_same_references => continue,
            _ => {}
        }
        failed.push(Arc::clone(authorized.narinfo()));
        let order = Order {
            authorized,
            sources,
            ..*order
        };
        error = match installer.unpack(&order, error.into_attempts(), retries) {
            Ok(checked) => return Ok(checked),
            Err(error) => error,
        };
    }
    Err(error.into())
}

/// Finds the servers that have `order`'s item in a build that `allowed` allows, for as long as
/// there is a resolver.
fn find_servers(resolver: &Arc<Resolver>, order: &Order<'_>, allowed: Builds) -> FindServers {
    let (resolver, item) = (Arc::downgrade(resolver), order.item.clone());
    let authorized = Arc::clone(order.authorized);
    Box::new(move || {
        let Some(resolver) = resolver.upgrade() else {
            return Vec::new();
        };
        let is_allowed = |build: &Build| {
            allowed != Builds::WithSameReferences
                || have_same_references(build.authority.authorized(), &authorized)
        };
        let found = resolver.resolve_everywhere(item.clone()).items;
        let builds = found.into_iter().flat_map(Found::builds).filter(is_allowed);
        builds
            .flat_map(|build| build.sources)
            .map(|source| source.server)
            .collect()
    })
}

/// Who has the very nar that is ordered, of all servers.
fn same_build_sources(resolver: &Resolver, order: &Order<'_>) -> Vec<Source> {
    let found = resolver.resolve_everywhere(order.item.clone()).items;
    let is_same = |build: &Build| is_same_build(build.authority.authorized(), order.authorized);
    let same = found.into_iter().flat_map(Found::builds).filter(is_same);
    same.flat_map(|build| build.sources).collect()
}

fn is_same_build(one: &AuthorizedNarInfo, other: &AuthorizedNarInfo) -> bool {
    one.narinfo().is_equivalent(other.narinfo())
}

fn have_same_references(one: &AuthorizedNarInfo, other: &AuthorizedNarInfo) -> bool {
    one.narinfo().references().eq(other.narinfo().references())
}
