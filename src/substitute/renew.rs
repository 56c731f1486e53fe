//! An item whose bytes cannot be had from where its narinfo leads: ask again, ask others.
//!
//! A narinfo may outlive the nar it leads to, in a lookup cache or on a mirror; and servers
//! that nobody needed to ask may have the bytes. Only an equivalent narinfo will do in the place
//! of the first: others know its references already.

use crate::store::unpack::Checked;

use super::answer::{Authority, Source};
use super::install::{Attempt, Installer, ItemError, Order};
use super::lookup::{Resolver, Walk};

/// Makes the item's tree at its destination: from its sources, once more with what the servers say
/// now when a nar was gone though a narinfo led to it, and then from servers that had not been
/// heard.
///
/// # Errors
/// Nobody gives the bytes that are vouched for, or the tree cannot be written; nothing is left
/// behind.
pub fn unpack(
    installer: &Installer,
    resolver: &Resolver,
    order: &Order<'_>,
) -> Result<Checked, ItemError> {
    let unpacked = match installer.unpack(order, &[]) {
        Err(error) if error.is_stale() => again(installer, resolver, order, error),
        other => other,
    };
    let is_stale = unpacked.as_ref().is_err_and(ItemError::is_stale);
    let unpacked = match unpacked {
        Err(error) if error.is_of_servers() => elsewhere(installer, resolver, order, error),
        other => other,
    };
    if is_stale || unpacked.as_ref().is_err_and(ItemError::is_stale) {
        // What was asked for anew is as wrong as what had been remembered before.
        resolver.disbelieve(order.item.clone());
    }
    unpacked
}

fn again(
    installer: &Installer,
    resolver: &Resolver,
    order: &Order<'_>,
    error: ItemError,
) -> Result<Checked, ItemError> {
    resolver.forget(order.item.clone());
    let found = resolver.resolve(vec![order.item.clone()], Walk::JustThese);
    let Some(found) = found.items.into_iter().next() else { return Err(error) };
    let authority = found.authority.as_ref().and_then(Authority::checked);
    let old = order.authorized.narinfo();
    let Some(authorized) = authority.filter(|new| new.narinfo().is_equivalent(old)) else {
        return Err(error);
    };
    let told: &[Attempt] = match &error {
        ItemError::AllFailed(attempts) => attempts,
        _ => &[],
    };
    installer.unpack(&Order { authorized, sources: &found.sources, ..*order }, told)
}

fn elsewhere(
    installer: &Installer,
    resolver: &Resolver,
    order: &Order<'_>,
    error: ItemError,
) -> Result<Checked, ItemError> {
    let found = resolver.resolve_everywhere(order.item.clone());
    let Some(found) = found.items.into_iter().next() else { return Err(error) };
    let is_new = |new: &Source| order.sources.iter().all(|old| old.server != new.server);
    let is_same = |new: &Source| new.narinfo.is_equivalent(order.authorized.narinfo());
    let sources: Vec<Source> =
        found.sources.into_iter().filter(|source| is_new(source) && is_same(source)).collect();
    if sources.is_empty() {
        return Err(error);
    }
    installer
        .unpack(&Order { sources: &sources, ..*order }, &[])
        .map_err(|other| error.and_then(other))
}
