//! The commands: one file each.

pub mod authorize;
pub mod cache;
pub mod fetch;
pub mod query;
pub mod servers;
pub mod substitute;
