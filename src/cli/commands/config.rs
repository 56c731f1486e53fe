//! `subst config`: shows every setting with its value and its origin, or checks all of them. Both work
//! with invalid settings, and report all errors.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::args::ConfigCommand;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{self, Output};
use crate::cli::progress;
use crate::cli::settings::{InspectedSetting, Origin, ProgressMode, Settings, SettingsInspection};
use crate::substitute::cancel::Cancel;
use crate::substitute::chain;
use crate::substitute::clock::Clock;
use crate::substitute::progress::SilentProgress;

/// Comments of longer settings stand behind them, not in a column.
const COLUMN_MAX: usize = 48;

/// Carries the command out; `errors` are those of the settings, and of diagnostics.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn run(
    command: ConfigCommand,
    mut inspection: SettingsInspection,
    mut errors: Vec<CliError>,
    is_json: bool,
    output: &Output,
    clock: Clock,
) -> Result<Exit, CliError> {
    for warning in &inspection.findings.warnings {
        output.warn(warning);
    }

    match command {
        ConfigCommand::Show => show(&inspection, &errors, is_json, output)?,
        ConfigCommand::Check => {
            if let Some(settings) = inspection.effective.take() {
                errors.extend(check_keys(settings, output, clock));
            }
            if is_json {
                output.json(&check_json(&inspection, &errors))?;
            } else if errors.is_empty() {
                output.note("the settings are valid");
            }
        }
    }

    if !is_json {
        for error in &errors {
            let hint = match error {
                CliError::Settings(error) => error.hint(),
                _ => None,
            };
            output.error(error, hint);
        }
    }
    Ok(if errors.is_empty() {
        Exit::Done
    } else {
        Exit::Usage
    })
}

/// Reads the authorized keys, as every command that fetches does, and looks for the keys that the policy
/// names among them. What is wrong.
fn check_keys(settings: Settings, output: &Output, clock: Clock) -> Vec<CliError> {
    let run_progress = progress::for_mode(ProgressMode::None, settings.verbosity, None, clock);
    let context = Context {
        output: Output::new(settings.verbosity, output.messages()),
        settings,
        clock,
        progress: Arc::new(SilentProgress),
        run_progress: Arc::new(run_progress),
        cancel: Cancel::default(),
        cores: 1,
    };
    match context.keys() {
        Err(error) => vec![error],
        Ok(keys) => {
            let (_, faults) = context.policy(&keys);
            faults.into_iter().map(CliError::Policy).collect()
        }
    }
}

fn check_json(inspection: &SettingsInspection, errors: &[CliError]) -> Value {
    json!({
        "valid": errors.is_empty(),
        "files": files_json(inspection),
        "warnings": inspection.findings.warnings,
        "errors": errors_json(errors),
    })
}

fn errors_json(errors: &[CliError]) -> Vec<String> {
    errors.iter().map(|error| chain(error)).collect()
}

fn files_json(inspection: &SettingsInspection) -> Vec<Value> {
    let files = inspection.findings.files.iter();
    files
        .map(|file| json!({ "path": output::shown_path(&file.path), "state": file.state.name() }))
        .collect()
}

fn show(
    inspection: &SettingsInspection,
    errors: &[CliError],
    is_json: bool,
    output: &Output,
) -> Result<(), CliError> {
    if is_json {
        output.json(&show_json(inspection, errors))?;
    } else {
        output.lines(show_lines(inspection).into_iter().map(Into::into))?;
    }
    Ok(())
}

fn show_json(inspection: &SettingsInspection, errors: &[CliError]) -> Value {
    let settings = inspection.settings.iter();
    let settings: Vec<Value> = settings
        .map(|setting| {
            json!({
                "name": setting.key,
                "value": setting.value,
                "origin": origin_json(&setting.origin),
            })
        })
        .collect();
    let variables = inspection.variables.iter();
    let variables: Vec<Value> = variables
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    let places = places(inspection);
    let places: Vec<Value> = places
        .iter()
        .map(|(name, path)| json!({ "name": name, "path": path }))
        .collect();
    json!({
        "files": files_json(inspection),
        "settings": settings,
        "variables": variables,
        "places": places,
        "warnings": inspection.findings.warnings,
        "errors": errors_json(errors),
    })
}

fn origin_json(origin: &Origin) -> Value {
    match origin {
        Origin::Option(name) => json!({ "kind": "option", "name": name }),
        Origin::Environment(name) => json!({ "kind": "variable", "name": name }),
        Origin::Daemon(name) | Origin::DaemonClient(name) => {
            json!({ "kind": "daemon", "name": name })
        }
        Origin::File { path, line, .. } => {
            json!({ "kind": "file", "name": output::shown_path(path), "line": line })
        }
        Origin::Default(_) => json!({ "kind": "default" }),
    }
}

/// The directories and files that the settings lead to.
fn places(inspection: &SettingsInspection) -> Vec<(&'static str, String)> {
    let Some(settings) = &inspection.effective else {
        return Vec::new();
    };
    let layout = &settings.layout;
    let fixed = [
        ("store", layout.store()),
        ("state", layout.state()),
        ("database", layout.database()),
        ("configuration", layout.config()),
    ];
    let caches = settings.cache_dirs.iter();
    let caches = caches.map(|path| ("lookup-cache", path.as_path()));
    let places = fixed.into_iter().chain(caches);
    places
        .map(|(name, path)| (name, output::shown_path(path)))
        .collect()
}

/// A settings file with all settings, and comments.
fn show_lines(inspection: &SettingsInspection) -> Vec<String> {
    let mut lines = vec!["# Settings files; the first one that has a setting decides".to_owned()];
    for file in &inspection.findings.files {
        let (path, state) = (output::shown_path(&file.path), file.state.name());
        lines.push(format!("#   {path}: {state}"));
    }

    lines.push(String::new());
    let (tables, plain): (Vec<_>, Vec<_>) = inspection
        .settings
        .iter()
        .partition(|setting| is_list_of_tables(setting));
    let rows: Vec<(String, String)> = plain.into_iter().map(show_setting).collect();
    let widths = rows.iter().map(|(setting, _)| setting.chars().count());
    let column = widths.filter(|width| *width <= COLUMN_MAX).max();
    let column = column.unwrap_or_default();
    for (setting, comment) in rows {
        lines.push(format!("{setting:<column$}  # {comment}"));
    }

    for (heading, rows) in [
        ("Other variables that are set", &inspection.variables),
        (
            "Directories; the first lookup cache that can be written is used",
            &places(inspection),
        ),
    ] {
        if !rows.is_empty() {
            lines.extend([String::new(), format!("# {heading}")]);
            lines.extend(
                rows.iter()
                    .map(|(name, value)| format!("#   {name}: {value}")),
            );
        }
    }

    // Tables end a settings file: what follows them would belong to the last one.
    for setting in tables {
        lines.extend([String::new(), format!("# {}", origin_text(&setting.origin))]);
        lines.extend(table_lines(setting));
    }
    lines
}

fn is_list_of_tables(setting: &InspectedSetting) -> bool {
    let values = setting.value.as_ref().and_then(toml::Value::as_array);
    values.is_some_and(|values| values.iter().any(toml::Value::is_table))
}

/// The line of a settings file and its comment.
fn show_setting(setting: &InspectedSetting) -> (String, String) {
    let origin = origin_text(&setting.origin);
    match &setting.value {
        Some(value) => (format!("{} = {value}", setting.key), origin),
        None => {
            let note = setting.default_note.replace('`', "");
            (format!("# {}", setting.key), format!("{origin}: {note}"))
        }
    }
}

fn table_lines(setting: &InspectedSetting) -> Vec<String> {
    let tables = setting.value.as_ref().and_then(toml::Value::as_array);
    let mut lines = Vec::new();
    for table in tables
        .into_iter()
        .flatten()
        .filter_map(toml::Value::as_table)
    {
        lines.push(format!("[[{}]]", setting.key));
        lines.extend(
            table
                .iter()
                .map(|(name, value)| format!("{name} = {value}")),
        );
    }
    lines
}

fn origin_text(origin: &Origin) -> String {
    match origin {
        Origin::Default(_) => "default".to_owned(),
        Origin::File { path, line, .. } => format!("{}:{line}", output::shown_path(path)),
        other => other.to_string(),
    }
}
