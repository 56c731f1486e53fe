//! The options that every command has: one for each setting that has an option, and those that
//! apply to one run only.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::cli::output::Verbosity;

use super::option_group::OptionGroup;
use super::spec::SettingSpec;
use super::table::SETTINGS;
use super::value::OptionForm;

const LOOKUPS: &str = OptionGroup::Lookups.heading();
const GENERAL: &str = OptionGroup::General.heading();

/// The options that every command has.
#[derive(Debug, Args, Default)]
pub(crate) struct CommonOptions {
    /// The settings that were given as options.
    #[command(flatten)]
    pub(super) settings: SettingOptions,
    /// Send lookups even if the lookup cache has an answer, and replace that answer
    #[arg(long, global = true, conflicts_with = "offline", help_heading = LOOKUPS)]
    pub(super) refresh: bool,
    /// Use only cached answers; no network access
    #[arg(long, global = true, help_heading = LOOKUPS)]
    pub(super) offline: bool,
    /// Print data as JSON
    #[arg(long, global = true, help_heading = GENERAL)]
    pub(crate) json: bool,
    /// Show only errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = GENERAL)]
    pub(super) quiet: bool,
    /// Show more detail; -vv also writes diagnostics (repeatable) [env: SUBST_LOG, SUBST_LOG_FILE]
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = GENERAL)]
    pub(crate) verbose: u8,
    /// Read settings from FILE instead of the usual files [env: SUBST_CONFIG]
    #[arg(long, value_name = "FILE", global = true, help_heading = GENERAL)]
    pub(super) config: Option<PathBuf>,
}

impl CommonOptions {
    /// How much is printed.
    pub(super) fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Normal,
            (false, _) => Verbosity::Verbose,
        }
    }
}

/// What the shared option of this name is about; `None` for an option of a single command.
#[must_use]
pub(crate) fn option_group(name: &str) -> Option<OptionGroup> {
    let mut rows = SETTINGS.iter().map(|(row, _)| row);
    if let Some(row) = rows.find(|row| row.key == name && row.option.is_some()) {
        return Some(row.group);
    }
    match name {
        "refresh" | "offline" => Some(OptionGroup::Lookups),
        "json" => Some(OptionGroup::Json),
        "quiet" | "verbose" | "config" => Some(OptionGroup::General),
        _ => None,
    }
}

/// The settings that were given as options, as they were written.
#[derive(Debug, Default)]
pub(crate) struct SettingOptions(Vec<(&'static str, OsString)>);

impl SettingOptions {
    /// What was given for the option of `row`.
    pub(super) fn text(&self, row: &SettingSpec) -> Option<&OsStr> {
        let given = self.0.iter().find(|(key, _)| *key == row.key);
        given.map(|(_, text)| text.as_os_str())
    }
}

impl FromArgMatches for SettingOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut options = Self::default();
        options.update_from_arg_matches(matches)?;
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let rows = SETTINGS.iter().filter(|(row, _)| row.option.is_some());
        for (row, _) in rows {
            if matches.value_source(row.key) != Some(ValueSource::CommandLine) {
                continue;
            }
            let values: Vec<&OsStr> = matches.get_raw(row.key).into_iter().flatten().collect();
            self.0.push((row.key, values.join(OsStr::new(" "))));
        }
        Ok(())
    }
}

impl Args for SettingOptions {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().filter_map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument((row, form): &(&'static SettingSpec, OptionForm)) -> Option<Arg> {
    let argument = Arg::new(row.key)
        .long(row.option?.trim_start_matches("--"))
        .short(row.short)
        .help(row.option_help())
        .long_help(row.long_option_help())
        .help_heading(row.group.heading())
        .global(true);

    Some(match form {
        OptionForm::Flag => argument.action(ArgAction::SetTrue),
        OptionForm::Value => argument
            .value_name(row.value_name)
            .value_parser(ValueParser::os_string()),
        OptionForm::List => argument
            .value_name(row.value_name)
            .value_parser(ValueParser::os_string())
            .action(ArgAction::Append),
        OptionForm::Choice(choices) => {
            let values = choices
                .iter()
                .map(|(name, help)| PossibleValue::new(*name).help(*help));
            argument
                .value_name(row.value_name)
                .value_parser(PossibleValuesParser::new(values))
        }
    })
}
