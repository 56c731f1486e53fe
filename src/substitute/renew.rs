//! An item whose narinfo turns out to be stale: forget it, ask again, try once more.
//!
//! A narinfo may outlive the nar it leads to, in a lookup cache or on a mirror. Only an
//! equivalent narinfo will do in its place: others know the references of the old one already.

use crate::store::unpack::Checked;

use super::answer::Authority;
use super::install::{Installer, ItemError, Order};
use super::lookup::{Resolver, Walk};

/// Unpacks as [`Installer::unpack`], a second time with what the servers say now when a nar
/// was gone though a narinfo led to it.
///
/// # Errors
/// As [`Installer::unpack`]; the first failure when there is nothing new.
pub fn unpack(
    installer: &Installer,
    resolver: &Resolver,
    order: &Order<'_>,
) -> Result<Checked, ItemError> {
    match installer.unpack(order) {
        Err(error) if error.is_stale() => again(installer, resolver, order, error),
        other => other,
    }
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
    installer.unpack(&Order { authorized, sources: &found.sources, ..*order })
}
