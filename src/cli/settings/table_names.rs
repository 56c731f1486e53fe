//! The names in a table of a settings file.

use crate::cli::suggestion;
use crate::format::credentials::without_credentials;

/// Refuses names in `table` that are not among `names`: a misspelled name that is ignored is worse than
/// none.
///
/// # Errors
/// Which are unknown, and what was probably meant.
pub(super) fn check(table: &toml::Table, names: &[&'static str]) -> Result<(), String> {
    let unknown = table.keys().filter(|key| !names.contains(&key.as_str()));
    let unknown: Vec<String> = unknown.map(|name| unknown_name(name, names)).collect();
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(unknown.join("; ")),
    }
}

fn unknown_name(name: &str, names: &[&'static str]) -> String {
    let shown = without_credentials(name);
    match suggestion::closest(name, "", names.iter().copied()) {
        Some(intended) => format!("unknown name `{shown}`; did you mean `{intended}`?"),
        None => format!("unknown name `{shown}`; the names are {}", names.join(", ")),
    }
}
