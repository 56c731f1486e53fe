//! Lookups: items x servers -> lookup cache -> servers -> trust.

mod answer_slot;
mod answers;
mod cached;
mod engine;
mod item;
mod item_result;
mod items;
mod options;
mod reconsider;
mod refused;
mod requests;
mod resolution;
mod resolver;
mod server_events;
mod server_offer;
mod servers;
mod verification;
mod waiting;

pub(crate) use options::{
    Freshness, LookupObserver, LookupOptions, LookupScope, ResolverSetup, SignatureChecks,
    SkipFilter,
};
pub(crate) use resolution::{Resolution, ResolveError};
pub(crate) use resolver::Resolver;
pub(crate) use servers::ServerReport;

#[cfg(test)]
mod tests;
