//! `subst` fetches substitutes for GNU Guix and Nix. The program is [`cli::run`]; this library also
//! offers its formats to other programs:
//!
//! - [`mod@format`]: parsers and printers of narinfos, nars, store paths, hashes and s-expressions.
//! - [`trust`]: ACLs and keys of Guix and Nix, and the verification of signatures.
//! - [`codec`]: decoders of all compression methods of nars, with bounded memory.
//!
//! Parse a narinfo and verify its signature:
//!
//! ```
//! use std::sync::Arc;
//!
//! use subst::format::narinfo::NarInfo;
//! use subst::format::store_path::{StoreDir, StorePath};
//! use subst::trust::acl::{Acl, AuthorizedKeys};
//! use subst::trust::guix::PublicKey;
//! use subst::trust::verdict::authorize;
//!
//! # const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/signatures");
//! # let text = std::fs::read_to_string(format!("{FIXTURES}/vector-a.narinfo"))?;
//! # let key = std::fs::read(format!("{FIXTURES}/vector-a.pub"))?;
//! let store_dir = StoreDir::parse(StoreDir::GUIX)?;
//! let narinfo = Arc::new(NarInfo::parse(text, &store_dir)?);
//! let mut acl = Acl::default();
//! acl.authorize(PublicKey::parse(&key)?);
//!
//! let item = StorePath::parse("0f9qzp1g3jy45al4zspzqah9f8d5bisp-debconf-1.0")?;
//! let authorized = authorize(narinfo, item.as_ref(), &AuthorizedKeys::Guix(acl), &store_dir)?;
//! assert_eq!(authorized.narinfo().nar_size(), 288_640);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Read a nar:
//!
//! ```
//! use std::io::Read as _;
//!
//! use subst::format::nar::{NarEvent, NarReader};
//! use subst::format::store_path::Dialect;
//!
//! # let nar = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/nar/tree.nar"))?;
//! let mut reader = NarReader::new(&nar[..], Dialect::Guix);
//! while let Some(event) = reader.next()? {
//!     if let NarEvent::File { name, size, .. } = event {
//!         let mut contents = Vec::new();
//!         reader.contents().read_to_end(&mut contents)?;
//!         assert_eq!(contents.len() as u64, size);
//!         println!("{name:?}: {size} bytes");
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Programs that do this and more are in the directory `examples`: `verify_narinfo`, `read_nar`, and
//! `look_up_and_fetch`, which runs a whole fetch.
//!
//! The crate has six layers. A module may use its own layer's directory and the layers above it in
//! the list below; `tests/it/layers.rs` checks this, and `docs/development/architecture.md` describes it.

// 0: mutexes and threads, files reached without following links, SQLite; used by every layer.
mod no_follow;
mod sqlite;
mod sync;
// 1: bytes <-> types, pure.
pub mod format;
// 2: compressed bytes to nar bytes; has an authorized key signed this narinfo?
pub mod codec;
pub mod trust;
// 3: edges, one kind of effect each; they never import each other.
mod http;
mod lookup_cache;
mod namespace;
mod sandbox;
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
    pub use crate::store::{CheckError, Checked, ItemLock, Published, Store, StoreError, Unpacked};
}

/// What the fuzz targets in `tests/fuzz` call of the modules that are not public.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(test)]
mod testing;
