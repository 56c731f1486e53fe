//! Removal of user names and passwords from URLs and from text that quotes URLs.
//!
//! A URL that cannot be parsed may still contain a password: often it is the password that makes
//! it invalid. So this works on text, and in doubt removes too much rather than too little.

use std::borrow::Cow;

/// Replaces a user name and password.
pub(crate) const REMOVED: &str = "***";

/// `text`, which should be one URL, without user name and password. Everything before an `@`
/// counts as such, and so does a port that is not a number.
#[must_use]
pub(crate) fn url_without_credentials(text: &str) -> Cow<'_, str> {
    let rest = match text.split_once(':') {
        Some((_, rest)) if rest.starts_with(SLASHES) => rest.trim_start_matches(SLASHES),
        _ => text,
    };
    let scheme = &text[..text.len() - rest.len()];
    if scheme.is_empty() && !rest.contains('@') {
        return Cow::Borrowed(text);
    }

    redacted(scheme, rest).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// `text`, such as the error of a parser that quotes its input, without the user names and
/// passwords of the URLs in it: everything between a scheme's `:/` and the last `@` before the
/// next double quote, backquote or line break is removed.
#[must_use]
pub(crate) fn without_credentials(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    let mut is_changed = false;

    while let Some((_, after)) = rest.split_once(SEPARATOR) {
        let after = after.trim_start_matches('/');
        shown.push_str(&rest[..rest.len() - after.len()]);
        let end = after.find(['"', '`', '\n']).unwrap_or(after.len());
        let (url, behind) = after.split_at(end);

        match redacted("", url) {
            Some(url) => {
                is_changed = true;
                shown.push_str(&url);
                rest = behind;
            }
            None => rest = after,
        }
    }

    if !is_changed {
        return Cow::Borrowed(text);
    }

    shown.push_str(rest);
    Cow::Owned(shown)
}

/// Separates a scheme from the rest; a URL with a typing error may have a single slash.
const SEPARATOR: &str = ":/";
/// The characters that URL parsers accept as slashes behind a scheme.
const SLASHES: [char; 2] = ['/', '\\'];

/// A URL of `scheme` and `rest` without credentials; `None` if it has none.
fn redacted(scheme: &str, rest: &str) -> Option<String> {
    if let Some((_, host)) = rest.rsplit_once('@') {
        return Some(format!("{scheme}{REMOVED}@{host}"));
    }

    // The first half of a URL with a blank in its password looks like one with an invalid port.
    let authority = rest.split(ends_authority).next().unwrap_or_default();
    let (_, port) = authority
        .split_once(':')
        .filter(|_| !authority.starts_with('['))?;
    let is_port = port
        .trim_end_matches([',', ';', '.', ')', ']', ':'])
        .bytes()
        .all(|byte| byte.is_ascii_digit());

    (!is_port).then(|| format!("{scheme}{REMOVED}"))
}

fn ends_authority(c: char) -> bool {
    c.is_whitespace() || matches!(c, '/' | '\\' | '?' | '#' | '\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_password_stays_in_a_url() {
        for (text, shown) in [
            ("http://me:Sesame#1@h:80", "http://***@h:80"),
            ("http://me:Sesame/1@h", "http://***@h"),
            ("http://me:Se@same?@h/x", "http://***@h/x"),
            ("http://token@h", "http://***@h"),
            ("http:/me:Sesame@h", "http:/***@h"),
            ("http:\\\\me:Sesame@h", "http:\\\\***@h"),
            ("ftp://me:Sesame@h/", "ftp://***@h/"),
            ("me:Sesame@h:3128", "***@h:3128"),
            ("://me:Sesame@h", "://***@h"),
            // One word of a password with a blank.
            ("http://me:Sesame", "http://***"),
            ("http://me:1Sesame/x", "http://***"),
        ] {
            assert_eq!(url_without_credentials(text), shown, "{text}");
        }
        for text in [
            "http://h:80/x",
            "http://[::1]:80",
            "file:///x",
            "file:x",
            "h:x",
            "",
            "http://",
            "/a:b",
        ] {
            assert_eq!(url_without_credentials(text), text);
        }
    }

    #[test]
    fn no_part_of_a_password_stays_in_a_sentence() {
        for (text, shown) in [
            (
                "invalid value 'http://me:Sesame@h' for x",
                "invalid value 'http://***@h' for x",
            ),
            (
                "1 | u = [\"http://a\", \"http://me:Se same@h\n",
                "1 | u = [\"http://a\", \"http://***@h\n",
            ),
            (
                "`ftp://me:x@h` and `ftp://me:y@h`",
                "`ftp://***@h` and `ftp://***@h`",
            ),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
        for text in [
            "see https://example.org: it",
            "at (http://127.0.0.1:80)",
            "me@here",
            "a://",
        ] {
            assert_eq!(without_credentials(text), text);
        }
    }
}
