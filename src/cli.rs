//! Layer 6: people and scripts.

mod advice;
mod args;
mod commands;
mod context;
mod diagnostics;
mod dispatch;
mod env;
mod error;
mod exit;
mod file_trust;
mod nix_conf;
mod output;
mod process;
mod progress;
mod run;
mod settings;
mod suggestion;
mod text;

pub use run::run;
