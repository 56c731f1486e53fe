//! `subst`: fetches substitutes for GNU Guix and Nix.
//!
//! Six layers; a module may use its own layer's directory and the layers above it in this
//! list. `tests/it/layers.rs` keeps it so, and `docs/architecture.md` says why.

// 0: mutexes and threads, used by every layer.
mod sync;
// 1: bytes <-> types, pure.
pub mod format;
// 2: is this narinfo vouched for? Pure.
pub mod trust;
// 3: edges, one kind of effect each; they never import each other.
pub mod codec;
mod http;
mod lookup_cache;
mod store;
// 4: the use cases.
mod substitute;
// 5: guix-daemon's helper protocol.
mod daemon;
// 6: people and scripts.
pub mod cli;

/// What the documentation tests of `Published` name: the types that say how far an item has come.
#[doc(hidden)]
pub mod item_stages {
    pub use crate::store::{
        Checked, ItemLock, NarMismatch, Published, Store, StoreError, Unpacked,
    };
}

#[cfg(test)]
mod testing;
