//! The command line: what was typed, and nothing done about it yet.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Settings that every command understands.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Settings that every command understands.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Global {
    /// Use an embedded store below DIR, made on first use; no privileges needed
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) root: Option<PathBuf>,
    /// The store directory; /nix/store selects Nix's layout and signatures
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) store_dir: Option<String>,
    /// Substitute servers in order of preference, separated by blanks (repeatable)
    #[arg(long, value_name = "URLS", global = true)]
    pub(crate) substitute_urls: Vec<String>,
    /// The keys that may sign, as Guix keeps them
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) acl: Option<PathBuf>,
    /// The keys that may sign for /nix/store: NAME:KEY, separated by blanks (repeatable)
    #[arg(long, value_name = "KEYS", global = true)]
    pub(crate) trusted_public_keys: Vec<String>,
    /// Ask the servers even if the lookup cache knows the answer, and renew it
    #[arg(long, global = true, conflicts_with = "offline")]
    pub(crate) refresh: bool,
    /// Believe the lookup cache alone and connect to nobody
    #[arg(long, global = true)]
    pub(crate) offline: bool,
    /// Items fetched at the same time, up to 256
    #[arg(short, long, value_name = "N", global = true)]
    pub(crate) jobs: Option<usize>,
    /// How progress is shown: bars on a terminal by default
    #[arg(long, value_name = "HOW", global = true)]
    pub(crate) progress: Option<ProgressMode>,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Show more detail; -vv also writes diagnostics (repeatable) [env: SUBST_LOG, SUBST_LOG_FILE]
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// Read settings from FILE instead of the usual places
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Do not check TLS certificates; signatures are checked all the same
    #[arg(long, global = true)]
    pub(crate) insecure_tls: bool,
    /// Also use the servers that guix-daemon discovered in the local network
    #[arg(long, global = true)]
    pub(crate) discover: bool,
    /// Seconds to wait for a connection
    #[arg(long, value_name = "SECONDS", global = true)]
    pub(crate) connect_timeout: Option<f64>,
    /// Seconds without a byte before a server counts as down
    #[arg(long, value_name = "SECONDS", global = true)]
    pub(crate) stall_timeout: Option<f64>,
    /// How long to retry a server that stops answering: 5s, 2m, 1h; 0 fails at once [default: 60s]
    #[arg(long, value_name = "DURATION", global = true)]
    pub(crate) retry_time: Option<String>,
    /// Connections for lookups to a server that wants many, and for the parts of one large nar
    #[arg(long, value_name = "N", global = true)]
    pub(crate) connections: Option<usize>,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// Bars on a terminal, nothing else where.
    Auto,
    /// One line a second.
    Plain,
    /// One JSON object a line, on standard error.
    Json,
    /// Nothing.
    None,
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
