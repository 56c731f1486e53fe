//! The client against servers on loopback that misbehave in one way each.

mod files;
mod lookups;
mod nars;
mod proxies;
mod tls;
