//! Passwords of hosts in the format of netrc, as curl and Nix read it.
//!
//! A file is a sequence of words: `machine HOST` or `default`, then `login NAME` and `password TEXT`,
//! and others that are skipped. A word may be quoted with `"`, and then contain blanks. A line whose
//! first word begins with `#` is a comment. A macro (`macdef NAME`) extends to the next empty line.
//! An entry without a login has an empty one: attic writes such entries for tokens.

use super::secret::Secret;

/// The entries of a file, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Netrc(Vec<NetrcEntry>);

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NetrcEntry {
    /// The host; `None` for the entry of all other hosts.
    machine: Option<String>,
    /// The user name, empty if there is none.
    pub(crate) login: String,
    /// The password.
    pub(crate) password: Secret,
}

/// Whether the entry of all other hosts counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefaultEntry {
    Used,
    Ignored,
}

impl Netrc {
    /// The entries in `text`. What is not one is skipped.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        let mut entries: Vec<NetrcEntry> = Vec::new();
        let words = words(text);
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word {
                "machine" => entries.extend(words.next().map(|host| NetrcEntry::new(Some(host)))),
                "default" => entries.push(NetrcEntry::new(None)),
                "login" | "password" | "account" => {
                    let (value, entry) = (words.next(), entries.last_mut());
                    match (word, value, entry) {
                        ("login", Some(value), Some(entry)) => value.clone_into(&mut entry.login),
                        ("password", Some(value), Some(entry)) => {
                            entry.password = Secret::new(value);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Self(entries)
    }

    /// The entry for `host`: the first one that names it, or else the default one. If there is a `login`, only
    /// entries with it count.
    #[must_use]
    pub(crate) fn entry(
        &self,
        host: &str,
        login: &str,
        default: DefaultEntry,
    ) -> Option<&NetrcEntry> {
        let of_login = self.0.iter();
        let mut of_login = of_login.filter(|entry| login.is_empty() || entry.login == login);
        let named = of_login.clone().find(|entry| {
            let machine = entry.machine.as_deref();
            machine.is_some_and(|machine| machine.eq_ignore_ascii_case(host))
        });
        let default =
            of_login.find(|entry| entry.machine.is_none() && default == DefaultEntry::Used);
        named.or(default)
    }
}

impl NetrcEntry {
    fn new(machine: Option<&str>) -> Self {
        Self {
            machine: machine.map(str::to_owned),
            login: String::new(),
            password: Secret::new(""),
        }
    }
}

/// The words of a file without comments and macros.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut in_macro = false;
    for line in text.lines() {
        in_macro &= !line.trim().is_empty();
        if in_macro || line.trim_start().starts_with('#') {
            continue;
        }

        let mut rest = line.trim_start();
        while !rest.is_empty() {
            let (word, after) = first_word(rest);
            rest = after.trim_start();
            if word == "macdef" {
                in_macro = true;
                break;
            }
            words.push(word);
        }
    }
    words
}

/// The first word of a line that begins with it, and what follows.
fn first_word(line: &str) -> (String, &str) {
    let Some(quoted) = line.strip_prefix('"') else {
        let end = line.find(char::is_whitespace).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        return (word.to_owned(), rest);
    };

    let mut word = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => word.extend(chars.next().map(unescaped)),
            other => word.push(other),
        }
    }
    (word, chars.as_str())
}

/// What a character behind a backslash stands for.
fn unescaped(c: char) -> char {
    match c {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, host: &str) -> Option<(String, String)> {
        let netrc = Netrc::parse(text);
        let entry = netrc.entry(host, "", DefaultEntry::Used)?;
        Some((entry.login.clone(), entry.password.expose().to_owned()))
    }

    #[test]
    fn the_first_entry_of_a_host_counts_and_else_the_default() {
        let text = "default login d password e\n\
            machine A.example login me password one # two\n\
            machine b.example\n\tpassword token\n\
            machine a.example login you password three\n\
            machine c.example account x login \"a b\" password \"q\\\"\\\\ #\"\n";
        for (host, login, password) in [
            ("a.example", "me", "one"),
            ("b.example", "", "token"),
            ("c.example", "a b", "q\"\\ #"),
            ("d.example", "d", "e"),
        ] {
            let expected = Some((login.to_owned(), password.to_owned()));
            assert_eq!(found(text, host), expected, "{host}");
        }
        let netrc = Netrc::parse(text);
        assert!(
            netrc
                .entry("d.example", "", DefaultEntry::Ignored)
                .is_none()
        );
        assert!(
            netrc
                .entry("A.EXAMPLE", "", DefaultEntry::Ignored)
                .is_some()
        );
    }

    #[test]
    fn comments_macros_and_incomplete_entries_are_skipped() {
        let text = "# machine a login x password y\nmachine b login me\nmacdef init\n\
            machine c login x password y\n\nmachine d password z login w\nport 80\nmachine";
        assert_eq!(found(text, "a"), None);
        assert_eq!(found(text, "b"), Some(("me".to_owned(), String::new())));
        assert_eq!(found(text, "c"), None);
        assert_eq!(found(text, "d"), Some(("w".to_owned(), "z".to_owned())));
        for text in ["", "machine", "password x", "login", "machine h password"] {
            assert!(found(text, "x").is_none(), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let netrc = Netrc::parse("machine h login me password Sesame");
        assert!(!format!("{netrc:?}").contains("Sesame"));
    }
}
