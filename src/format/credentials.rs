//! Text without the user names and passwords of the URLs in it.
//!
//! A URL that cannot be parsed may still hold a password: often it is the password that keeps it
//! from being parsed. So this works on text, and removes rather too much than too little.

use std::borrow::Cow;

/// What stands in the place of a user name and password.
pub const REMOVED: &str = "***";

/// `text`, which is meant to be one URL, without user name and password. Anything before an `@`
/// counts as such, and so does a port that is no number.
#[must_use]
pub fn url_without_credentials(text: &str) -> Cow<'_, str> {
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

/// `text`, such as an error of a parser that quotes its input, without the user names and
/// passwords of the URLs in it. What is between a scheme's `:/` and the last `@` in front of the
/// next double quote, backquote or line break is removed.
#[must_use]
pub fn without_credentials(text: &str) -> Cow<'_, str> {
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

/// What is between a scheme and the rest; some leave a slash out.
const SEPARATOR: &str = ":/";
/// What parsers of URLs take for the slashes behind a scheme.
const SLASHES: [char; 2] = ['/', '\\'];

/// `scheme` and the `rest` of a URL behind it without credentials; `None` when it has none.
fn redacted(scheme: &str, rest: &str) -> Option<String> {
    if let Some((_, host)) = rest.rsplit_once('@') {
        return Some(format!("{scheme}{REMOVED}@{host}"));
    }
    // Half of a URL that had a blank in its password.
    let is_end = |c: char| c.is_whitespace() || matches!(c, '/' | '\\' | '?' | '#' | '\'');
    let authority = rest.split(is_end).next().unwrap_or_default();
    let (_, port) = authority
        .split_once(':')
        .filter(|_| !authority.starts_with('['))?;
    let is_port = port
        .trim_end_matches([',', ';', '.', ')', ']', ':'])
        .bytes()
        .all(|byte| byte.is_ascii_digit());
    (!is_port).then(|| format!("{scheme}{REMOVED}"))
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
