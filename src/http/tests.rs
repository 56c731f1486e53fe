//! The client against servers on loopback with faults: one fault each, or random ones.

mod bounds;
mod certificates;
mod encodings;
mod files;
mod habits;
mod lookups;
mod nars;
mod objects;
mod outages;
mod proxies;
mod random_faults;
mod refusals;
mod tls;
