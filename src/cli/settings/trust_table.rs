//! The `[trust]` table: how many principals have to agree about an item, and who they are.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::value::{Date, Datetime};

use crate::format::credentials::without_credentials;
use crate::trust::name_pattern::NamePattern;
use crate::trust::policy::{KeyName, NeedRule, Objection, PolicyTerms, Principal};

use super::shown::ShownValue;
use super::table_names;
use super::value::{Count, SettingValue, invalid};

/// How many principals may have to agree.
pub(super) type Need = Count<1, 64>;

/// The names in the table and in its lists of tables, and what they are for.
pub(crate) const TRUST_TABLE_HELP: &[(&str, &str)] = &[
    (
        "need",
        "How many principals have to sign the same before an item is used, from 1 to 64. Default: 1.",
    ),
    (
        "on-too-few",
        "With fewer votes, `refuse` the item (default), or use it if there is one, and `warn`.",
    ),
    (
        "on-dissent",
        "Where a principal has signed other contents for the item, `refuse` it (default), or `warn`. Two \
         contents that both have enough votes are always refused.",
    ),
    (
        "principal",
        "A list of tables, `[[trust.principal]]`: a person or organization that signs independently of \
         the others. Without any, each authorized key is one.",
    ),
    (
        "rule",
        "A list of tables, `[[trust.rule]]`: another `need` for some items. The first one that matches counts.",
    ),
];

/// The names in a table of `[[trust.principal]]`.
pub(crate) const PRINCIPAL_TABLE_HELP: &[(&str, &str)] = &[
    ("name", "The name in messages. Required."),
    (
        "keys",
        "Its keys, which have one vote together: `guix:` and at least 16 of the hex digits of a Guix key; \
         `nix:` and the name of a Nix key, or NAME:BASE64. Required.",
    ),
    (
        "expires",
        "The last day (UTC) on which it votes, such as 2027-12-31.",
    ),
];

/// The names in a table of `[[trust.rule]]`.
pub(crate) const RULE_TABLE_HELP: &[(&str, &str)] = &[
    (
        "match",
        "The items: their names, with or without the hash in front; `*` stands for any text, `?` for any \
         character. Required.",
    ),
    (
        "need",
        "How many principals have to agree about them. Required.",
    ),
];

/// The policy that the table states.
#[derive(Debug, Clone)]
pub(super) struct TrustTable {
    pub(super) terms: PolicyTerms,
    /// The table as it was written.
    value: toml::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ObjectionName {
    Refuse,
    Warn,
}

/// A day: from when on it is over, in Unix seconds, and its name.
#[derive(Deserialize)]
#[serde(try_from = "toml::Value")]
struct LastDay(u64, String);

impl TryFrom<toml::Value> for LastDay {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let day = match &value {
            toml::Value::Datetime(day) => Some(*day),
            toml::Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let Some(Datetime {
            date: Some(date),
            time: None,
            offset: None,
        }) = day
        else {
            return Err(invalid(&value.to_string(), "a day, such as 2027-12-31"));
        };
        let end = unix_days(date).and_then(|days| (days + 1).checked_mul(86_400));
        let end = end.ok_or_else(|| invalid(&date.to_string(), "a day after 1970"))?;
        Ok(Self(end, date.to_string()))
    }
}

/// The days from 1970-01-01 to `date`.
fn unix_days(date: Date) -> Option<u64> {
    // The algorithm of Howard Hinnant's `days_from_civil`: years begin in March, in eras of 400 years.
    let (month, day) = (u64::from(date.month), u64::from(date.day));
    let year = u64::from(date.year).checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

impl From<ObjectionName> for Objection {
    fn from(name: ObjectionName) -> Self {
        match name {
            ObjectionName::Refuse => Self::Refuse,
            ObjectionName::Warn => Self::Warn,
        }
    }
}

impl SettingValue for TrustTable {
    fn from_text(text: &str) -> Result<Self, String> {
        Err(invalid(text, "a table"))
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        let toml::Value::Table(mut table) = value.clone() else {
            return Err("it is not a table, which begins with `[trust]`".to_owned());
        };
        table_names::check(&table, &names(TRUST_TABLE_HELP))?;

        let default = PolicyTerms::default();
        let on_too_few = optional::<ObjectionName>(&mut table, "on-too-few")?;
        let on_dissent = optional::<ObjectionName>(&mut table, "on-dissent")?;
        let need = optional::<Need>(&mut table, "need")?;
        let terms = PolicyTerms {
            need: need.map_or(default.need, |need| need.0),
            rules: list(&mut table, "rule", RULE_TABLE_HELP, rule)?,
            on_too_few: on_too_few.map_or(default.on_too_few, Objection::from),
            on_dissent: on_dissent.map(Objection::from),
            principals: list(&mut table, "principal", PRINCIPAL_TABLE_HELP, principal)?,
        };
        check_principals(&terms.principals)?;
        Ok(Self { terms, value })
    }
}

impl ShownValue for TrustTable {
    fn to_toml(&self) -> toml::Value {
        self.value.clone()
    }
}

fn names(help: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    help.iter().map(|(name, _)| *name).collect()
}

/// The value of `name`, which is taken out of `table`.
fn optional<T: DeserializeOwned>(table: &mut toml::Table, name: &str) -> Result<Option<T>, String> {
    let value = table.remove(name).map(toml::Value::try_into);
    value.transpose().map_err(|error: toml::de::Error| {
        let fault = without_credentials(error.message());
        format!("{name}: {fault}")
    })
}

fn required<T: DeserializeOwned>(table: &mut toml::Table, name: &str) -> Result<T, String> {
    optional(table, name)?.ok_or_else(|| format!("`{name}` is missing"))
}

/// The tables in the list `name`, which is taken out of `table`.
fn list<T>(
    table: &mut toml::Table,
    name: &str,
    help: &[(&'static str, &'static str)],
    read: fn(toml::Table) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let tables = match table.remove(name) {
        None => Vec::new(),
        Some(toml::Value::Array(tables)) => tables,
        Some(_) => {
            return Err(format!(
                "`{name}` is not a list of tables; each one begins with `[[trust.{name}]]`"
            ));
        }
    };

    let tables = tables.into_iter().enumerate().map(|(index, value)| {
        let made = match value {
            toml::Value::Table(table) => {
                table_names::check(&table, &names(help)).and_then(|()| read(table))
            }
            other => Err(invalid(&other.to_string(), "a table")),
        };
        made.map_err(|fault| format!("{name} {}: {fault}", index + 1))
    });
    tables.collect()
}

fn principal(mut table: toml::Table) -> Result<Principal, String> {
    let name: String = required(&mut table, "name")?;
    if name.trim().is_empty() || name.len() > PRINCIPAL_NAME_BYTES_MAX {
        let limit = PRINCIPAL_NAME_BYTES_MAX;
        return Err(format!("`name` is empty, or longer than {limit} bytes"));
    }

    let keys: Vec<String> = required(&mut table, "keys")?;
    if keys.is_empty() {
        return Err("it has no keys, so it would never vote".to_owned());
    }
    let keys = keys.iter().map(|text| {
        let key = KeyName::parse(text);
        key.map_err(|fault| format!("`{}` is not a key: {fault}", without_credentials(text)))
    });

    let expires: Option<LastDay> = optional(&mut table, "expires")?;
    Ok(Principal {
        name: name.trim().to_owned(),
        keys: keys.collect::<Result<_, _>>()?,
        expires: expires.map(|LastDay(end, day)| (end, day)),
    })
}

const PRINCIPAL_NAME_BYTES_MAX: usize = 64;

fn rule(mut table: toml::Table) -> Result<NeedRule, String> {
    let pattern: String = required(&mut table, "match")?;
    if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!(
            "`match` is empty, or longer than {PATTERN_BYTES_MAX} bytes"
        ));
    }
    let need: Need = required(&mut table, "need")?;
    Ok(NeedRule {
        names: NamePattern::new(&pattern),
        need: need.0,
    })
}

/// No item has a longer name.
const PATTERN_BYTES_MAX: usize = 256;

/// Two principals with one name, or with one key, would be one voter with two votes.
fn check_principals(principals: &[Principal]) -> Result<(), String> {
    for (index, principal) in principals.iter().enumerate() {
        for other in &principals[..index] {
            if other.name == principal.name {
                return Err(format!("two principals have the name `{}`", other.name));
            }
            if let Some(key) = principal.keys.iter().find(|key| other.keys.contains(key)) {
                let (one, other) = (&other.name, &principal.name);
                return Err(format!(
                    "the principals `{one}` and `{other}` have the same key `{key}`"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TrustTable, String> {
        let mut table: toml::Table = text.parse().unwrap();
        TrustTable::from_toml(table.remove("trust").unwrap())
    }

    const FULL: &str = "[trust]\nneed = 2\non-too-few = \"warn\"\non-dissent = \"refuse\"\n\
        [[trust.principal]]\nname = \"ci\"\nkeys = [\"guix:8d156f295d24b0d9\", \"nix:a-1\"]\n\
        expires = 2027-12-31\n[[trust.principal]]\nname = \"b\"\nkeys = [\"7D602902D3A2DBB8\"]\n\
        [[trust.rule]]\nmatch = \"*-linux-*\"\nneed = 3\n";

    #[test]
    fn a_policy_is_read_and_shown() {
        let table = read(FULL).unwrap();
        let PolicyTerms {
            need,
            rules,
            on_too_few,
            on_dissent,
            principals,
        } = &table.terms;
        assert_eq!((*need, rules[0].need), (2, 3));
        assert_eq!(rules[0].names, NamePattern::new("*-linux-*"));
        assert_eq!(*on_too_few, Objection::Warn);
        assert_eq!(*on_dissent, Some(Objection::Refuse));
        let ci_keys = [
            KeyName::Guix("8D156F295D24B0D9".into()),
            KeyName::Nix("a-1".into()),
        ];
        assert_eq!(principals[0].keys, ci_keys);
        let end = (1_830_297_600, "2027-12-31".to_owned());
        assert_eq!(principals[0].expires, Some(end));
        assert_eq!(
            principals[1].keys,
            [KeyName::Guix("7D602902D3A2DBB8".into())]
        );

        let again = TrustTable::from_toml(table.to_toml()).unwrap();
        assert_eq!(again.terms, table.terms);
        let inline: toml::Table = format!("trust = {}", table.to_toml()).parse().unwrap();
        let inline = TrustTable::from_toml(inline["trust"].clone()).unwrap();
        assert_eq!(inline.terms, table.terms, "`config show` prints one line");
        assert_eq!(read("[trust]").unwrap().terms, PolicyTerms::default());
    }

    #[test]
    fn nothing_that_is_wrong_is_ignored() {
        for (from, to, expected) in [
            ("need = 2", "needs = 2", "did you mean `need`?"),
            ("need = 2", "need = 0", "need: `0` is out of range"),
            ("need = 2", "need = \"two\"", "two"),
            ("\"warn\"", "\"ignore\"", "unknown variant `ignore`"),
            ("name = \"ci\"\n", "", "principal 1: `name` is missing"),
            ("\"ci\"", "\"b\"", "two principals have the name `b`"),
            (
                "name = \"b\"",
                "nam = \"b\"",
                "principal 2: unknown name `nam`",
            ),
            (
                "7D602902D3A2DBB8",
                "guix:7D6029",
                "principal 2: `guix:7D6029` is not a key",
            ),
            ("7D602902D3A2DBB8", "8D156F295D24B0D9", "have the same key"),
            (
                "[\"7D602902D3A2DBB8\"]",
                "[]",
                "principal 2: it has no keys",
            ),
            ("2027-12-31", "2027-12-31T01:00:00", "is not a day"),
            ("2027-12-31", "7", "is not a day"),
            ("need = 3", "", "rule 1: `need` is missing"),
            ("*-linux-*", "", "rule 1: `match` is empty"),
            ("[[trust.rule]]", "[trust.rule]", "`[[trust.rule]]`"),
        ] {
            let text = FULL.replacen(from, to, 1);
            assert_ne!(text, FULL);
            let error = read(&text).expect_err(to);
            assert!(error.contains(expected), "{to}: {error}");
        }
        assert!(TrustTable::from_toml(2.into()).is_err());
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (day, days) in [
            ("1970-01-01", 0),
            ("2000-02-29", 11_016),
            ("2000-03-01", 11_017),
            ("2100-01-01", 47_482),
        ] {
            let parsed: Datetime = day.parse().unwrap();
            assert_eq!(unix_days(parsed.date.unwrap()), Some(days), "{day}");
        }
        let early: Datetime = "1969-12-31".parse().unwrap();
        assert_eq!(unix_days(early.date.unwrap()), None);
    }
}
