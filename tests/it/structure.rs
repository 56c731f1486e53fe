//! The structure of `src/`, read from its text: which file imports from which, and the numbers of
//! the code style. The layers are in `layers.rs`.
//!
//! The reader knows as much of Rust as these checks need. It resolves paths by name: child
//! modules, `use` declarations and re-exports. Paths that macros make are not seen, nor are
//! methods, which need no import.

mod arrows;
mod circles;
mod names;
mod ratchet;
pub(crate) mod source;
mod style;
mod upward;
