//! The client against servers on loopback that misbehave, in one way each or as chance has it.

mod chance;
mod files;
mod lookups;
mod nars;
mod proxies;
mod tls;
