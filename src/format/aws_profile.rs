//! Profiles in the shared files of the AWS tools, `~/.aws/credentials` and `~/.aws/config`. Pure.

use std::collections::BTreeMap;

use super::secret::Secret;

/// How a file names its profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AwsFileKind {
    /// `[NAME]`, as in `~/.aws/credentials`.
    Credentials,
    /// `[profile NAME]`, or `[default]`, as in `~/.aws/config`.
    Config,
}

/// The settings of one profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AwsProfile(BTreeMap<String, Secret>);

impl AwsProfile {
    /// The profile `name` in `text`; `None` if it has no such profile. Lines that are no settings are
    /// skipped, and so are the nested ones of services.
    #[must_use]
    pub(crate) fn parse(text: &str, kind: AwsFileKind, name: &str) -> Option<Self> {
        let mut settings = BTreeMap::new();
        let (mut is_found, mut is_inside) = (false, false);
        for line in text.lines() {
            if line.trim().is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = line.trim_end().strip_prefix('[') {
                let section = section.split(']').next().unwrap_or_default();
                is_inside = profile_name(section.trim(), kind) == Some(name);
                is_found |= is_inside;
            } else if is_inside
                && !line.starts_with([' ', '\t'])
                && let Some((key, value)) = line.split_once('=')
            {
                let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
                settings.insert(key, Secret::new(value));
            }
        }
        is_found.then_some(Self(settings))
    }

    /// Adds the settings of `other` that this one does not have. An access key and its session token belong together: they
    /// stay those of this one if it has a key, and are those of `other` if not.
    pub(crate) fn add(&mut self, other: Self) {
        let has_key = ACCESS_KEY.iter().take(2).all(|key| self.get(key).is_some());
        if !has_key {
            self.0.retain(|key, _| !ACCESS_KEY.contains(&key.as_str()));
        }
        for (key, value) in other.0 {
            if !has_key || !ACCESS_KEY.contains(&key.as_str()) {
                self.0.entry(key).or_insert(value);
            }
        }
    }

    /// The value of `key`, unless it is empty.
    #[must_use]
    pub(crate) fn get(&self, key: &str) -> Option<&Secret> {
        self.0.get(key).filter(|value| !value.expose().is_empty())
    }
}

/// An access key, and the session token that it may have.
const ACCESS_KEY: [&str; 3] = [
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
];

/// The profile that a section is about.
fn profile_name(section: &str, kind: AwsFileKind) -> Option<&str> {
    match (kind, section.split_once(char::is_whitespace)) {
        (AwsFileKind::Config, Some(("profile", name))) => Some(name.trim().trim_matches('"')),
        (AwsFileKind::Config, None) if section == "default" => Some(section),
        (AwsFileKind::Config, _) => None,
        (AwsFileKind::Credentials, _) => Some(section),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, kind: AwsFileKind, name: &str, key: &str) -> Option<String> {
        let profile = AwsProfile::parse(text, kind, name)?;
        profile.get(key).map(|value| value.expose().to_owned())
    }

    #[test]
    fn profiles_of_both_files() {
        let credentials = "# c\n[default]\naws_access_key_id = A\naws_secret_access_key=s=/+\n\
            \n[work] ; x\r\nAWS_ACCESS_KEY_ID=B\n[empty]\naws_access_key_id=\n";
        let file = AwsFileKind::Credentials;
        for (name, key, expected) in [
            ("default", "aws_access_key_id", Some("A")),
            ("default", "aws_secret_access_key", Some("s=/+")),
            ("work", "aws_access_key_id", Some("B")),
            ("empty", "aws_access_key_id", None),
            ("none", "aws_access_key_id", None),
        ] {
            let found = value(credentials, file, name, key);
            assert_eq!(found.as_deref(), expected, "{name} {key}");
        }

        let config = "[default]\nregion=x\ns3 =\n  region = y\n[profile work]\nregion = z\n\
            [profile \"a b\"]\nregion=w\n[work]\nregion = no\n[sso-session s]\nregion=no";
        for (name, expected) in [("default", "x"), ("work", "z"), ("a b", "w")] {
            let found = value(config, AwsFileKind::Config, name, "region");
            assert_eq!(found.as_deref(), Some(expected), "{name}");
        }
        assert_eq!(value(config, AwsFileKind::Config, "s", "region"), None);
    }

    #[test]
    fn nothing_is_shown() {
        let text = "[default]\naws_secret_access_key=Sesame";
        let profile = AwsProfile::parse(text, AwsFileKind::Credentials, "default");
        assert!(!format!("{profile:?}").contains("Sesame"));
    }
}
