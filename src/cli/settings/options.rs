//! The options that every command has: one for each setting that has an option, and those that
//! apply to one run only.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::cli::output::Verbosity;

use super::spec::SettingSpec;
use super::table::SETTINGS;
use super::value::OptionForm;

/// The options that every command has.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Common options")]
pub(crate) struct CommonOptions {
    /// The settings that were given as options.
    #[command(flatten)]
    pub(super) settings: SettingOptions,
    /// Send lookups even if the lookup cache has an answer, and replace that answer
    #[arg(long, global = true, conflicts_with = "offline")]
    pub(super) refresh: bool,
    /// Use only cached answers; no network access
    #[arg(long, global = true)]
    pub(super) offline: bool,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Show more detail; -vv also writes diagnostics (repeatable) [env: SUBST_LOG, SUBST_LOG_FILE]
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
    /// Read settings from FILE instead of the usual files [env: SUBST_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
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
