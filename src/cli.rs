//! Layer 6: people and scripts.

pub mod args;
pub mod env;
pub mod exit;
pub mod settings;
