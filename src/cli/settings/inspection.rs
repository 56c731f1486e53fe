//! Every setting with its value and its origin, for `subst config`. User names, passwords and
//! the queries of URLs are replaced.

use toml::Value;

use crate::cli::env::{self, Environment};
use crate::format::credentials::{
    REMOVED, url_without_credentials, without_credentials, without_queries,
};
use crate::format::server_url::ServerUrl;

use super::effective::{self, Settings};
use super::findings::SettingsFindings;
use super::options::CommonOptions;
use super::origin::Origin;
use super::servers;
use super::shown::ShownSetting;
use super::spec::SettingSpec;
use super::stores;
use super::table::SettingsLayer;

/// All about the settings of a run.
pub(crate) struct SettingsInspection {
    /// Each setting, in the order of the table.
    pub(crate) settings: Vec<InspectedSetting>,
    /// Files, warnings and errors.
    pub(crate) findings: SettingsFindings,
    /// The other variables that are set and have an effect, with their values.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// What the settings add up to; `None` if there are errors.
    pub(crate) effective: Option<Settings>,
}

/// A setting, its value and where it was set.
pub(crate) struct InspectedSetting {
    /// Its name in settings files.
    pub(crate) key: &'static str,
    /// Its value, as a settings file has it; `None` if it has none, or an invalid one.
    pub(crate) value: Option<Value>,
    /// Where it was set.
    pub(crate) origin: Origin,
    /// What holds without a value.
    pub(crate) default_note: &'static str,
}

/// How the value of a variable is shown.
#[derive(Debug, Clone, Copy)]
enum VariableForm {
    /// As it is.
    Text,
    /// The URL of a proxy, or hosts without one: neither needs a scheme.
    Proxy,
    /// Not at all: it may contain secrets.
    Secret,
}

/// The variables that are not settings and have an effect.
const VARIABLES: [(&str, VariableForm); 23] = [
    (env::SUBST_CONFIG, VariableForm::Text),
    (env::SUBST_LOG, VariableForm::Text),
    (env::SUBST_LOG_FILE, VariableForm::Text),
    (env::SUBST_REAL_GUIX, VariableForm::Text),
    (env::GUIX_STATE_DIRECTORY, VariableForm::Text),
    (env::GUIX_LOG_DIRECTORY, VariableForm::Text),
    (env::GUIX_DATABASE_DIRECTORY, VariableForm::Text),
    (env::GUIX_CONFIGURATION_DIRECTORY, VariableForm::Text),
    (
        env::GUIX_ALLOW_UNAUTHENTICATED_SUBSTITUTES,
        VariableForm::Text,
    ),
    (env::NIX_CONF_DIR, VariableForm::Text),
    (env::NIX_CONFIG, VariableForm::Secret),
    (env::NIX_USER_CONF_FILES, VariableForm::Text),
    (env::SSL_CERT_FILE, VariableForm::Text),
    (env::NIX_SSL_CERT_FILE, VariableForm::Text),
    (env::SSL_CERT_DIR, VariableForm::Text),
    ("http_proxy", VariableForm::Proxy),
    ("https_proxy", VariableForm::Proxy),
    ("HTTPS_PROXY", VariableForm::Proxy),
    ("all_proxy", VariableForm::Proxy),
    ("ALL_PROXY", VariableForm::Proxy),
    ("no_proxy", VariableForm::Proxy),
    ("NO_PROXY", VariableForm::Proxy),
    ("XDG_CACHE_HOME", VariableForm::Text),
];

/// Looks at the settings of a run with these options.
pub(crate) fn inspect(options: &CommonOptions, environment: &Environment) -> SettingsInspection {
    let mut findings = SettingsFindings::default();
    let chosen = effective::choose(options, environment, None, &mut findings);
    let mut settings: Vec<_> = chosen.shown().into_iter().map(inspected).collect();
    for setting in settings
        .iter_mut()
        .filter(|setting| setting.value.is_none())
    {
        setting.value = default_of_store(setting.key, &chosen, environment);
    }

    for value in settings
        .iter_mut()
        .filter_map(|setting| setting.value.as_mut())
    {
        hide_credentials(value);
    }

    let variables = VARIABLES.into_iter().filter_map(|(name, form)| {
        let value = environment.os(name)?.to_string_lossy();
        let shown = match form {
            VariableForm::Text => without_credentials(&value).into_owned(),
            VariableForm::Proxy => without_queries(&url_without_credentials(&value)),
            VariableForm::Secret => REMOVED.to_owned(),
        };
        Some((name, shown))
    });
    SettingsInspection {
        settings,
        variables: variables.collect(),
        effective: Settings::resolve(chosen, options, environment, &mut findings),
        findings,
    }
}

fn inspected((row, setting): (&'static SettingSpec, Option<ShownSetting>)) -> InspectedSetting {
    let (value, origin) = match setting {
        Some(setting) => (Some(setting.value), setting.origin),
        None => (None, Origin::Default(row.key)),
    };
    InspectedSetting {
        key: row.key,
        value,
        origin,
        default_note: row.default_note,
    }
}

/// The value of a setting that depends on the store, when nothing sets it.
fn default_of_store(key: &str, chosen: &SettingsLayer, environment: &Environment) -> Option<Value> {
    let (_, layout) = stores::layout(chosen, environment).ok()?;
    match key {
        "substitute-urls" => {
            let official = servers::official(layout.store_dir());
            let urls: Vec<&str> = official.iter().map(ServerUrl::as_str).collect();
            Some(urls.into())
        }
        "acl" => Some(layout.acl().display().to_string().into()),
        _ => None,
    }
}

/// Replaces user names, passwords and queries of URLs in all texts of `value`.
fn hide_credentials(value: &mut Value) {
    match value {
        Value::String(text) => {
            *text = without_credentials(&without_queries(text)).into_owned();
        }
        Value::Array(values) => values.iter_mut().for_each(hide_in_list),
        Value::Table(table) => table
            .iter_mut()
            .for_each(|(_, value)| hide_credentials(value)),
        _ => {}
    }
}

/// The same for a word of a list: a blank in a password splits a URL into several words.
fn hide_in_list(value: &mut Value) {
    match value {
        Value::String(word) => *word = without_queries(&url_without_credentials(word)),
        other => hide_credentials(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspection(text: &str, variables: &[(&str, &str)]) -> SettingsInspection {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let config = (env::SUBST_CONFIG, file.path().to_str().unwrap());
        let variables = variables.iter().copied().chain([config]);
        inspect(&CommonOptions::default(), &Environment::with(variables))
    }

    fn setting<'a>(inspection: &'a SettingsInspection, key: &str) -> &'a InspectedSetting {
        let mut settings = inspection.settings.iter();
        settings.find(|setting| setting.key == key).unwrap()
    }

    #[test]
    fn each_setting_has_the_value_and_origin_of_the_first_source_that_has_it() {
        let text = "jobs = 2\nread-ahead = 3\n";
        let inspection = inspection(text, &[("SUBST_JOBS", "8")]);
        let jobs = setting(&inspection, "jobs");
        assert_eq!(
            (&jobs.value, &jobs.origin),
            (&Some(8.into()), &Origin::Environment("SUBST_JOBS"))
        );

        let read_ahead = setting(&inspection, "read-ahead");
        assert_eq!(read_ahead.value, Some(3.into()));
        assert!(matches!(read_ahead.origin, Origin::File { line: 2, .. }));

        let acl = setting(&inspection, "acl");
        assert_eq!(acl.value, Some("/etc/guix/acl".into()));
        assert_eq!(acl.origin, Origin::Default("acl"));
        assert!(inspection.effective.is_some());
    }

    #[test]
    fn no_value_contains_a_password() {
        let text = "substitute-urls = [\"http://me:Sesame@a\", \"http://b/?token=Sesame\"]\n\
            [[server]]\nurl = \"https://:Sesame@c?token=Sesame\"\ntoken-file = \"token\"\n";
        let variables = [
            ("http_proxy", "me:Sesame@proxy:80"),
            ("https_proxy", "http://me:Sesame@proxy"),
            ("NIX_CONFIG", "access-tokens = a=Sesame"),
            ("no_proxy", "me:Sesame@h:1"),
            ("NO_PROXY", "b,me:Sesame open@h:1"),
            ("SUBST_LOG", "http:me:Sesame@h"),
            ("NIX_SSL_CERT_FILE", "me:Ses\"Sesame@h"),
        ];
        let inspection = inspection(text, &variables);
        let values = inspection
            .settings
            .iter()
            .map(|setting| format!("{:?}", setting.value));
        let all: Vec<String> = values
            .chain(inspection.variables.iter().map(|(_, value)| value.clone()))
            .collect();
        let all = all.join("\n");
        assert!(!all.contains("Sesame"), "{all}");
        assert!(
            all.contains("http://***@a") && all.contains("***@proxy"),
            "{all}"
        );
    }

    #[test]
    fn errors_of_all_sources_are_found() {
        let text = "jobs = 0\nroots = \"/a\"\nstore-dir = \"relative\"\n";
        let variables = [
            ("SUBST_SYNC", "always"),
            ("SUBST_SUBSTITUTE_URLS", "ftp://a"),
            ("http_proxy", "http:/a"),
        ];
        let inspection = inspection(text, &variables);
        let errors = inspection.findings.errors.iter().map(ToString::to_string);
        let errors: Vec<String> = errors.collect();
        let parts = [
            "SUBST_SYNC: ",
            ":1: jobs: ",
            ":2: unknown setting `roots`",
            ":3: store-dir: ",
            "SUBST_SUBSTITUTE_URLS: ",
            "http_proxy: ",
        ];
        assert_eq!(errors.len(), parts.len(), "{errors:#?}");
        for (error, part) in errors.iter().zip(parts) {
            assert!(error.contains(part), "{errors:#?}");
        }
        assert!(inspection.effective.is_none());
    }
}
