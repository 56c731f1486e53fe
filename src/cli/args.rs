//! The command line: what was typed, and nothing done about it yet. Examples, exit status and the
//! shared options of each command are in [`super::command_help`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::completion::shell::CompletionShell;
use super::mirror_place::MirrorPlace;
use super::settings::{CommonOptions, parse_bytes, parse_days, parse_period};
use crate::format::compression::Compression;
use crate::store::RootName;

/// Fetch substitutes for GNU Guix and Nix
#[derive(Debug, Parser)]
#[command(name = "subst", version, max_term_width = 100)]
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
    /// Fetch items and everything they refer to into the store
    Fetch(FetchArgs),
    /// Show which items are available, where, and why others are not
    Query(QueryArgs),
    /// Run a program of an item, with the store at its place
    Run(RunArgs),
    /// Compare this machine's builds with those of servers, as `guix challenge` does
    Challenge(ChallengeArgs),
    /// Sign narinfos for nars of another server that equal the items in this store
    Endorse(EndorseArgs),
    /// Copy narinfos and nars of servers, byte for byte, to a directory that others can fetch from
    Mirror(Box<MirrorInvocation>),
    /// Serve guix-daemon as its substituter helper
    Substitute(SubstituteArgs),
    /// Delete what no root needs from a store below `--root`
    Gc(GcArgs),
    /// List the roots that keep items from garbage collection, or remove some
    Roots(RootsArgs),
    /// Inspect or clear the lookup cache and unfinished downloads
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Show each server's status
    Servers,
    /// Verify the contents of a store
    Verify(VerifyArgs),
    /// Trust a server's signing key, as `guix archive --authorize` does
    Authorize(AuthorizeArgs),
    /// Show or check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print shell completions
    Completions {
        /// The shell to print them for
        shell: CompletionShell,
    },
    /// Write the manual pages to DIR
    #[command(hide = true)]
    Man {
        /// The directory, created if need be
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print the words that may stand in place of the last one, for completions
    #[command(hide = true)]
    CompleteWords {
        /// The words of a command line, without the name of the program
        #[arg(value_name = "WORD", last = true)]
        words: Vec<OsString>,
    },
}

/// Arguments of `subst fetch`.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Store items, by full name, by base name, or by a file inside; `-` reads them from standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Fetch only these items; what they refer to must be valid already
    #[arg(long)]
    pub(crate) no_references: bool,
    /// Unpack one item to DEST without registering it; needs no store
    #[arg(long, value_name = "DEST", conflicts_with_all = ["dry_run", "no_references"])]
    pub(crate) output: Option<PathBuf>,
    /// Show what would be fetched, without fetching it
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Continue after a failure
    #[arg(short, long)]
    pub(crate) keep_going: bool,
    /// Keep the items from garbage collection: make NAME a root of the first, NAME:1 of the second, ...
    #[arg(long, value_name = "NAME", value_parser = RootName::parse, conflicts_with = "output")]
    pub(crate) gc_root: Option<RootName>,
}

/// Arguments of `subst gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Keep items that were registered in the last N days, and all that they refer to
    #[arg(long, value_name = "N", value_parser = parse_days)]
    pub(crate) keep_days: Option<u64>,
    /// Delete items, oldest first, only until the store takes at most SIZE of the disk, such as 2G
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) max_size: Option<u64>,
    /// Show what would be deleted, and what keeps the rest
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `subst roots`.
#[derive(Debug, Args)]
pub(crate) struct RootsArgs {
    /// Remove the root NAME that `subst fetch --gc-root NAME` has made (repeatable)
    #[arg(long, value_name = "NAME", value_parser = RootName::parse)]
    pub(crate) remove: Vec<RootName>,
}

/// Arguments of `subst query`.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// Store items, by full name, by base name, or by a file inside; `-` reads them from standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Include everything they refer to
    #[arg(long)]
    pub(crate) closure: bool,
    /// Report what was missed, where and why, and what to do about it
    #[arg(long)]
    pub(crate) cache_miss_report: bool,
    /// With --cache-miss-report: include whether a proxy's cache has the nars
    #[arg(long, requires = "cache_miss_report")]
    pub(crate) probe_nars: bool,
    /// With --cache-miss-report: write the report to FILE as a page for browsers, too
    #[arg(long, value_name = "FILE", requires = "cache_miss_report")]
    pub(crate) html: Option<PathBuf>,
    /// Write metrics to FILE for a monitoring system (OpenMetrics text)
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,
}

/// Arguments of `subst run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A store item, by full name, by base name, or by a file inside, which is the program
    #[arg(value_name = "PATH")]
    pub(crate) item: String,
    /// A program in the item's `bin` or `sbin`, a file in the item such as `libexec/x`, or any file by its
    /// absolute name [default: the only program in `bin` (else `sbin`), or the one with the name of the item]
    pub(crate) program: Option<OsString>,
    /// Arguments of the program
    #[arg(last = true, value_name = "ARG")]
    pub(crate) arguments: Vec<OsString>,
}

/// Arguments of `subst challenge`.
#[derive(Debug, Args)]
pub(crate) struct ChallengeArgs {
    /// Store items, by full name, by base name, or by a file inside; `-` reads them from standard input
    #[arg(required_unless_present = "all_valid", value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Compare all valid items of the store
    #[arg(long, conflicts_with = "paths")]
    pub(crate) all_valid: bool,
    /// Download builds that differ, and name the differing files
    #[arg(long)]
    pub(crate) diff: bool,
    /// Count items that were not built here too
    #[arg(long)]
    pub(crate) even_substituted: bool,
}

/// Arguments of `subst endorse`.
#[derive(Debug, Args)]
pub(crate) struct EndorseArgs {
    /// Store items, by full name, by base name, or by a file inside; `-` reads them from standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// The secret key to sign with, which only its owner may read
    #[arg(long, value_name = "FILE", required_unless_present = "withdraw")]
    pub(crate) key: Option<PathBuf>,
    /// The server that has the nars, from which users will download them
    #[arg(long, value_name = "URL", required_unless_present = "withdraw")]
    pub(crate) nars: Option<String>,
    /// The directory to write narinfos to, created if need be
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Sign items that were not built here too
    #[arg(long)]
    pub(crate) even_substituted: bool,
    /// Remove the narinfos of the items from the directory again
    #[arg(long, conflicts_with_all = ["key", "nars", "even_substituted"])]
    pub(crate) withdraw: bool,
}

/// `subst mirror`: a copy, or a command about a mirror.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub(crate) struct MirrorInvocation {
    /// What to do with a mirror.
    #[command(subcommand)]
    pub(crate) command: Option<MirrorCommand>,
    /// What to copy.
    #[command(flatten)]
    pub(crate) copy: Option<MirrorArgs>,
}

/// What to do with a mirror.
#[derive(Debug, Subcommand)]
pub(crate) enum MirrorCommand {
    /// Find what is missing, wrong or left over in a mirror
    Verify(MirrorVerifyArgs),
    /// Remove items that are not kept from a mirror, and later their nars
    Gc(MirrorGcArgs),
}

/// Arguments of `subst mirror gc`.
#[derive(Debug, Args)]
pub(crate) struct MirrorGcArgs {
    /// The mirror: a directory, or a bucket as in s3://BUCKET
    #[arg(long, value_name = "DIR|URL", value_parser = MirrorPlace::parse)]
    pub(crate) to: MirrorPlace,
    /// Keep the items that FILE names, one in a line, and all that they refer to
    #[arg(long, value_name = "FILE")]
    pub(crate) keep_list: Option<PathBuf>,
    /// Keep items that were copied in the last N days, and all that they refer to
    #[arg(long, value_name = "N", value_parser = parse_days)]
    pub(crate) keep_days: Option<u64>,
    /// Remove items, oldest first, only until the rest takes at most SIZE, such as 200G
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) max_size: Option<u64>,
    /// Remove nars only so long after their narinfos, which clients keep for a while [default: 3d, or 30d for
    /// /nix/store]
    #[arg(long, value_name = "TIME", value_parser = parse_period)]
    pub(crate) grace: Option<Duration>,
    /// Show what would be removed, without removing it
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `subst mirror verify`.
#[derive(Debug, Args)]
pub(crate) struct MirrorVerifyArgs {
    /// The mirror: a directory, or a bucket as in s3://BUCKET
    #[arg(long, value_name = "DIR|URL", value_parser = MirrorPlace::parse)]
    pub(crate) to: MirrorPlace,
    /// Also read all nars, and compare them with the hashes in their narinfos
    #[arg(long)]
    pub(crate) deep: bool,
    /// Fetch again what is missing or wrong
    #[arg(long)]
    pub(crate) repair: bool,
}

/// Arguments of `subst mirror`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("items").required(true).args(["closure", "list", "all"]))]
pub(crate) struct MirrorArgs {
    /// Where to copy to: a directory, created if need be, or a bucket,
    /// s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&profile=NAME]
    #[arg(long, value_name = "DIR|URL", value_parser = MirrorPlace::parse)]
    pub(crate) to: MirrorPlace,
    /// Copy these store items and everything they refer to; `-` reads them from standard input
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) closure: Vec<String>,
    /// Copy the store items that FILE names, one in a line, and everything they refer to
    #[arg(long, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    /// Copy all items of the servers, which have to be directories or buckets
    #[arg(long)]
    pub(crate) all: bool,
    /// Copy only downloads with these compression methods, such as zstd,lzip; of items without them the
    /// smallest download [default: all downloads]
    #[arg(long, value_name = "METHODS", value_delimiter = ',', value_parser = parse_method)]
    pub(crate) compression: Vec<Compression>,
    /// Show what would be copied, without copying it
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

fn parse_method(name: &str) -> Result<Compression, String> {
    Compression::parse(name).map_err(|_| {
        let names = Compression::ALL.map(Compression::name).join(", ");
        format!("is none of {names}")
    })
}

/// Arguments of `subst substitute`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SubstituteArgs {
    /// Answer the requests `have` and `info`
    #[arg(long)]
    pub(crate) query: bool,
    /// Answer the request `substitute`
    #[arg(long)]
    pub(crate) substitute: bool,
}

/// Arguments of `subst verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Fetch what is damaged or missing again, and correct attributes (only with --root)
    #[arg(long)]
    pub(crate) repair: bool,
    /// Verify only these items [default: all valid items, and all files in `.links`]
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<String>,
}

/// What to do with the lookup cache and unfinished downloads.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show files, sizes and numbers of entries
    Info,
    /// List every entry: server, item, answer, age, time left
    List,
    /// Remove entries: all, those of a server, or those of items
    Flush(FlushArgs),
    /// Remove expired entries, and unfinished downloads that are older than a week
    Prune,
    /// Remove all entries and all unfinished downloads
    Clear,
}

/// Arguments of `subst cache flush`.
#[derive(Debug, Args)]
pub(crate) struct FlushArgs {
    /// Remove only entries of this server
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Remove only entries of these items
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<String>,
}

/// What to do with the settings.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting with its value and where it was set
    Show,
    /// Check settings, settings files and keys, and report all errors
    Check,
}

/// Arguments of `subst authorize`.
#[derive(Debug, Args)]
pub(crate) struct AuthorizeArgs {
    /// A public key, as `guix archive --generate-key` writes it, or the URL of a server that has one
    /// [default: standard input]
    #[arg(value_name = "FILE|URL")]
    pub(crate) file: Option<PathBuf>,
    /// List the authorized keys with their fingerprints
    #[arg(long, conflicts_with_all = ["file", "remove", "fingerprint"])]
    pub(crate) list: bool,
    /// Stop trusting the key with this fingerprint, of which 16 digits suffice, or in this file
    #[arg(long, value_name = "KEY", conflicts_with_all = ["file", "fingerprint"])]
    pub(crate) remove: Option<String>,
    /// Authorize the key only if it has this fingerprint, without asking
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) fingerprint: Option<String>,
}
