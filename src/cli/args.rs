//! The command line: what was typed, and nothing done about it yet.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::settings::CommonOptions;

/// Fetches substitutes for GNU Guix and Nix.
#[derive(Debug, Parser)]
#[command(
    name = "subst",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(after_help = "Settings may also stand in /etc/subst/config.toml, \
    $XDG_CONFIG_HOME/subst/config.toml and SUBST_* variables; see docs/configuration.md.")]
pub(crate) struct Cli {
    /// The options that every command has.
    #[command(flatten)]
    pub(crate) common: CommonOptions,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring items and everything they refer to into the store
    Fetch(FetchArgs),
    /// Tell which items are available, and where
    Query(QueryArgs),
    /// Serve guix-daemon as its substituter helper
    Substitute(SubstituteArgs),
    /// Look at the lookup cache, or make it forget
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Tell what each server says of itself
    Servers,
    /// Let a key sign substitutes, as `guix archive --authorize` does
    Authorize(AuthorizeArgs),
    /// Print completions for a shell
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Arguments of `subst fetch`.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Store items by their full names; `-` reads more from standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Only these items; what they refer to must be valid already
    #[arg(long)]
    pub(crate) no_references: bool,
    /// Unpack one item to DEST and register nothing; no store is needed
    #[arg(long, value_name = "DEST", conflicts_with_all = ["dry_run", "no_references"])]
    pub(crate) output: Option<PathBuf>,
    /// Tell what would be fetched, and fetch nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Do not stop at the first failure
    #[arg(short, long)]
    pub(crate) keep_going: bool,
}

/// Arguments of `subst query`.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// Store items by their full names; `-` reads more from standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Also everything they refer to
    #[arg(long)]
    pub(crate) closure: bool,
    /// Tell what was missed, where and why, and what to do about it
    #[arg(long)]
    pub(crate) cache_miss_report: bool,
    /// Ask whether the nars themselves are in a proxy's cache (for the report)
    #[arg(long, requires = "cache_miss_report")]
    pub(crate) probe_nars: bool,
}

/// Arguments of `subst substitute`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SubstituteArgs {
    /// Answer `have` and `info`
    #[arg(long)]
    pub(crate) query: bool,
    /// Answer `substitute`
    #[arg(long)]
    pub(crate) substitute: bool,
}

/// What to do with the lookup cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Where it is and what it holds
    Info,
    /// Every entry: server, item, answer, age, time left
    List,
    /// Forget entries: all, a server's, or those of some items
    Flush(FlushArgs),
    /// Remove entries that do not count any more
    Prune,
}

/// Arguments of `subst cache flush`.
#[derive(Debug, Args)]
pub(crate) struct FlushArgs {
    /// Only what this server said
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Only what was said of these items
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<String>,
}

/// Arguments of `subst authorize`.
#[derive(Debug, Args)]
pub(crate) struct AuthorizeArgs {
    /// A public key as `guix archive --generate-key` makes it; standard input when `-` or left out
    pub(crate) file: Option<PathBuf>,
}
