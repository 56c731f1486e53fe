//! The settings that options, environment, guix-daemon and the table's defaults have.

use std::ffi::OsStr;

use crate::cli::env::{self, Environment};
use crate::cli::suggestion;
use crate::daemon::options::DaemonOptions;
use crate::format::server_url::ServerUrl;

use super::error::SettingsError;
use super::findings::SettingsFindings;
use super::options::{CommonOptions, SettingOptions};
use super::origin::{Origin, Setting};
use super::table::{SETTINGS, SettingsLayer, from_text};
use super::value::{ProgressMode, WordList};

/// The settings of the command line.
pub(super) fn of_options(
    options: &SettingOptions,
    findings: &mut SettingsFindings,
) -> SettingsLayer {
    SettingsLayer::from_texts(
        &|row| Some((options.text(row)?, Origin::Option(row.option?))),
        findings,
    )
}

/// How progress is shown by the option or the variable; `None` without a valid one.
pub(crate) fn early_progress(
    options: &CommonOptions,
    environment: &Environment,
) -> Option<ProgressMode> {
    // Errors are found again when all settings are loaded.
    let mut findings = SettingsFindings::default();
    let chosen =
        of_options(&options.settings, &mut findings).or(of_environment(environment, &mut findings));
    chosen.progress.map(|setting| setting.value)
}

/// The settings of the environment.
pub(super) fn of_environment(
    environment: &Environment,
    findings: &mut SettingsFindings,
) -> SettingsLayer {
    SettingsLayer::from_texts(
        &|row| {
            let mut names = [row.variable, row.other_variable].into_iter().flatten();
            names.find_map(|name| Some((&**environment.os(name)?, Origin::Environment(name))))
        },
        findings,
    )
}

/// The defaults of the table.
pub(super) fn of_defaults(findings: &mut SettingsFindings) -> SettingsLayer {
    SettingsLayer::from_texts(
        &|row| Some((OsStr::new(row.default?), Origin::Default(row.key))),
        findings,
    )
}

/// The settings that guix-daemon passes to its helper. Servers with an invalid URL are left out, so that the others
/// are used all the same.
pub(super) fn of_daemon(options: &DaemonOptions) -> SettingsLayer {
    let urls = options.substitute_urls().map(|words| {
        let valid = words.iter().filter(|word| ServerUrl::parse(word).is_ok());
        WordList(valid.map(String::as_str).collect::<Vec<_>>().join(" "))
    });
    let origin = match options.client_urls {
        Some(_) => Origin::DaemonClient("substitute-urls"),
        None => Origin::Daemon("substitute-urls"),
    };

    SettingsLayer {
        substitute_urls: urls.map(|value| Setting { value, origin }),
        discover: options.discover.then_some(Setting {
            value: true,
            origin: Origin::Daemon("discover"),
        }),
        ..SettingsLayer::default()
    }
}

/// Drops what would lead guix-daemon's helper to another store than the daemon's, and returns where it
/// was set.
pub(super) fn leave_store_to_daemon(layer: &mut SettingsLayer) -> impl Iterator<Item = Origin> {
    let own_store_dir = layer
        .store_dir
        .take_if(|setting| setting.origin != Origin::Environment(env::NIX_STORE_DIR));
    let root = layer.root.take();
    let origins = [
        root.map(|setting| setting.origin),
        own_store_dir.map(|setting| setting.origin),
    ];
    origins.into_iter().flatten()
}

/// The store directory as Guix's own programs take it.
pub(super) fn store_dir_of_guix(
    environment: &Environment,
) -> Result<Option<Setting<String>>, SettingsError> {
    let text = environment.os(env::NIX_STORE_DIR);
    from_text(text.map(|text| (text.as_os_str(), Origin::Environment(env::NIX_STORE_DIR))))
}

/// The variables that have our prefix and are not known, each with what it was probably meant to be:
/// a mistyped setting that is ignored is worse than none.
pub(super) fn unknown_variables(environment: &Environment) -> Vec<String> {
    let known: Vec<&str> = SETTINGS
        .iter()
        .filter_map(|(row, _)| row.variable)
        .chain(env::OTHER_VARIABLES)
        .collect();

    let unknown = environment
        .names()
        .filter(|name| name.starts_with(env::PREFIX) && !known.contains(name))
        .filter(|name| !env::TEST_PREFIXES.iter().any(|it| name.starts_with(it)))
        .filter(|name| environment.os(name).is_some());
    let intended = known
        .iter()
        .copied()
        .filter(|name| *name != env::SUBST_DISPATCHED);
    unknown
        .map(
            |name| match suggestion::closest(name, env::PREFIX, intended.clone()) {
                Some(intended) => format!("unknown variable {name}; did you mean {intended}?"),
                None => format!("unknown variable {name}; `unset {name}` removes it"),
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid() {
        let mut findings = SettingsFindings::default();
        let defaults = of_defaults(&mut findings);
        assert!(findings.errors.is_empty(), "{findings:?}");
        assert_eq!(defaults.jobs.unwrap().value.0, 6);
        assert!(defaults.root.is_none());
    }

    #[test]
    fn an_unknown_variable_is_reported_with_a_similar_name() {
        let environment = Environment::with([
            ("SUBST_JOB", "2"),
            ("SUBST_JOBS", "2"),
            ("SUBST_SUBSTITUTE_URL", "http://me:Sesame@a"),
            ("SUBST_COLOR", "never"),
            ("SUBST_EMPTY", ""),
            ("SUBST_TEST_SEEDS", "1..2"),
            ("SUBST_LOG", "debug"),
            ("LESS", "x"),
        ]);
        let expected = [
            "unknown variable SUBST_JOB; did you mean SUBST_JOBS?",
            "unknown variable SUBST_SUBSTITUTE_URL; did you mean SUBST_SUBSTITUTE_URLS?",
            "unknown variable SUBST_COLOR; `unset SUBST_COLOR` removes it",
        ];
        assert_eq!(unknown_variables(&environment), expected);
    }
}
