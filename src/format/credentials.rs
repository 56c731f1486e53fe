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

/// `text` without the queries of the URLs in it, which may contain tokens.
#[must_use]
pub(crate) fn without_queries(text: &str) -> String {
    text.split_inclusive(char::is_whitespace)
        .map(|word| match word.split_once('?') {
            Some((url, query)) if url.contains(':') && !query.trim().is_empty() => {
                let blank = &query[query.trim_end().len()..];
                Cow::Owned(format!("{url}?{REMOVED}{blank}"))
            }
            _ => Cow::Borrowed(word),
        })
        .collect()
}

/// `text`, such as a word of the command line or the error of a parser that quotes its input, without
/// the user names and passwords in it.
///
/// - From a scheme to the last `@` before the next closing quote or line break, everything is
///   removed: a password may have a blank.
/// - In each word with a colon before an `@`, everything before the last `@` is removed, except for a
///   scheme: with whatever characters between them.
#[must_use]
pub(crate) fn without_credentials(text: &str) -> Cow<'_, str> {
    match quoted_urls_redacted(text) {
        Some(shown) => Cow::Owned(words_redacted(&shown).unwrap_or(shown)),
        None => words_redacted(text).map_or(Cow::Borrowed(text), Cow::Owned),
    }
}

/// `text` without the credentials of the URLs in it, which may have blanks; `None` if it has none.
fn quoted_urls_redacted(text: &str) -> Option<String> {
    let mut shown = String::new();
    let mut rest = text;
    let mut is_changed = false;

    while let Some(start) = first_url(rest) {
        let after = &rest[start..];
        shown.push_str(&rest[..start]);
        let (url, behind) = after.split_at(end_of_quoted(after));

        match redacted("", url) {
            Some(url) => {
                is_changed = true;
                shown.push_str(&url);
                rest = behind;
            }
            None => rest = after,
        }
    }

    shown.push_str(rest);
    is_changed.then_some(shown)
}

/// Where the first URL in `text` begins, behind its scheme and slashes.
fn first_url(text: &str) -> Option<usize> {
    text.match_indices(':').find_map(|(colon, _)| {
        let after = &text[colon + 1..];
        let is_url = is_url_start(&text[..colon], after);
        let rest = after.trim_start_matches(SLASHES);
        is_url.then(|| text.len() - rest.len())
    })
}

/// Whether a colon between `before` and `after` separates a scheme from the rest of a URL.
fn is_url_start(before: &str, after: &str) -> bool {
    if after.starts_with('/') || after.starts_with(r"\\") {
        return true;
    }

    let name_start = before
        .rfind(|c: char| !c.is_ascii_alphanumeric())
        .map_or(0, |position| position + 1);
    let name = before.get(name_start..).unwrap_or_default();
    let is_known = KNOWN_SCHEMES
        .iter()
        .any(|scheme| scheme.eq_ignore_ascii_case(name));
    let is_rest = |c: char| !c.is_whitespace() && c != ':';
    is_known && !before.ends_with("::") && after.starts_with(is_rest)
}

/// Where what is quoted ends that `text` begins with: at a line break, or at a quote that no letter
/// follows. Others may be part of a password.
fn end_of_quoted(text: &str) -> usize {
    let ends = text.match_indices(['"', '`', '\n']);
    let closing = ends.map(|(position, _)| position).find(|position| {
        let next = text[position + 1..].chars().next();
        text[*position..].starts_with('\n')
            || next.is_none_or(|c| c.is_whitespace() || ",;:.)]}".contains(c))
    });
    closing.unwrap_or(text.len())
}

/// `text` without the credentials in its words; `None` if it has none.
fn words_redacted(text: &str) -> Option<String> {
    let words = text.split_inclusive(char::is_whitespace);
    let words: Vec<Cow<'_, str>> = words.map(word_redacted).collect();
    let is_changed = words.iter().any(|word| matches!(word, Cow::Owned(_)));
    is_changed.then(|| words.concat())
}

/// `word` without what stands between its scheme, or its start, and the last `@` in it.
fn word_redacted(word: &str) -> Cow<'_, str> {
    let Some((before_host, _)) = word.rsplit_once('@') else {
        return Cow::Borrowed(word);
    };
    let Some(colon) = before_host.find(':') else {
        return Cow::Borrowed(word);
    };

    let host = &word[before_host.len()..];
    let after = &before_host[colon + 1..];
    let kept = if is_url_start(&before_host[..colon], after) {
        before_host.len() - after.trim_start_matches(SLASHES).len()
    } else {
        before_user_name(before_host)
    };
    if &before_host[kept..] == REMOVED {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("{}{REMOVED}{host}", &before_host[..kept]))
}

/// How many bytes of `word`, which has no scheme, stand before the user name: the name of an option and
/// an opening quote.
fn before_user_name(word: &str) -> usize {
    let value = match word.split_once('=') {
        Some((name, value)) if name.starts_with("--") && !name.contains(':') => value,
        _ => word,
    };
    word.len() - value.trim_start_matches(OPENING).len()
}

/// The schemes that are recognized without slashes behind them.
const KNOWN_SCHEMES: [&str; 8] = [
    "http", "https", "ftp", "file", "socks4", "socks5", "socks5h", "ssh",
];
/// The characters that URL parsers accept as slashes behind a scheme.
const SLASHES: [char; 2] = ['/', '\\'];
/// What a word may begin with that is quoted.
const OPENING: [char; 6] = ['"', '`', '\'', '(', '[', '<'];

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

    #[test]
    fn whatever_its_characters_no_password_stays_in_a_word() {
        for (text, shown) in [
            ("http:me:Sesame@HOST", "http:***@HOST"),
            ("HTTPS:me:Sesame@HOST", "HTTPS:***@HOST"),
            (r"http:\\me:Sesame@HOST", r"http:\\***@HOST"),
            (r"http:\me:Sesame@HOST", r"http:\***@HOST"),
            ("http://me:Ses\"ame@HOST", "http://***@HOST"),
            ("http://me:Ses`ame@HOST", "http://***@HOST"),
            ("http://me:Ses\"ame b@HOST", "http://***@HOST"),
            ("http://me:Ses\",ame@HOST/x", "http://***@HOST/x"),
            (
                "--substitute-urls=http:me:Sesame@HOST",
                "--substitute-urls=http:***@HOST",
            ),
            ("me:Sesame@h:1", "***@h:1"),
            ("localhost,me:Sesame@h:1", "***@h:1"),
            ("--proxy=me:Sesame@h", "--proxy=***@h"),
            ("`me:Sesame@h` is invalid", "`***@h` is invalid"),
            ("me:http://Sesame@h", "***@h"),
            ("http//me:Sesame@h", "***@h"),
        ] {
            assert_eq!(without_credentials(text), shown, "{text}");
            assert_eq!(without_credentials(shown), shown, "{text}");
        }
        for text in [
            "hello@2.12.2",
            "hello@2.12.2:doc",
            "`guix build hello@2.12`",
            "/home/me@work/store",
            "subst: me@here",
            "DEBUG subst::http::client: sent",
        ] {
            assert_eq!(without_credentials(text), text);
        }
    }

    #[test]
    fn no_form_of_a_url_shows_its_password() {
        let marks = [
            "", "\"", "`", "'", "/", "\\", "?", "#", "@", ":", "=", ",", "%", ";", "]",
        ];
        let starts = [
            "", "http:", "http:/", "http://", r"http:\\", "x://", "://", "ssh:", "file:",
        ];
        let frames = [
            ("", ""),
            ("--option=", ""),
            ("invalid value '", "' for x"),
            ("`", "`: no"),
        ];
        for (start, (before, behind)) in
            starts.iter().flat_map(|start| frames.map(|it| (start, it)))
        {
            for (first, last) in marks
                .iter()
                .flat_map(|first| marks.map(|last| (first, last)))
            {
                let text = format!("{before}{start}me:{first}Ses{last}ame{first}@h:1/x{behind}");
                let shown = without_credentials(&text);
                assert!(
                    !shown.contains("Ses") && !shown.contains("ame"),
                    "{text}: {shown}"
                );
                assert!(shown.contains("***@h:1/x"), "{text}: {shown}");
            }
        }
    }

    #[test]
    fn queries_are_secrets_too() {
        for (text, shown) in [
            ("http://h/x?token=Sesame", "http://h/x?***"),
            ("http://a?x http://b?y z", "http://a?*** http://b?*** z"),
            ("http://h/?", "http://h/?"),
            ("what?", "what?"),
        ] {
            assert_eq!(without_queries(text), shown);
        }
    }
}
