//! Store items as users name them: by their full name, by their base name, or by a file inside.
//!
//! Only the text counts: nothing is looked up. What is not the name of an item is an error that says
//! where names come from.

use crate::format::credentials::url_without_credentials;
use crate::format::escape::clip;
use crate::format::store_path::{StoreDir, StorePath, StorePathError, StorePathRef};

use super::advice::Advice;

/// Why a word does not name a store item.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ItemArgumentError {
    /// It is an address.
    #[error("`{0}` is a URL, not a store item")]
    Url(String),
    /// It is in a store directory other than the one in use.
    #[error("`{}` is an item of {theirs}, and {ours} is in use", .word.escape_debug())]
    OtherStore {
        /// What was given.
        word: String,
        /// The store directory in it.
        theirs: &'static str,
        /// The store directory in use.
        ours: String,
    },
    /// The dots of the documentation were copied.
    #[error("`{}` is not a store item: `...` stands for its hash", .0.escape_debug())]
    Placeholder(String),
    /// It is in the store directory, and not the name of an item.
    #[error("`{}` is not a store item", .word.escape_debug())]
    Invalid {
        /// What was given.
        word: String,
        /// What is wrong with it.
        source: StorePathError,
    },
    /// It is something else.
    #[error("`{}` is not a store item", .0.escape_debug())]
    NotAnItem(String),
}

/// The item that `word` names in `store_dir`.
///
/// # Errors
/// It names none.
pub(crate) fn parse(word: &str, store_dir: &StoreDir) -> Result<StorePath, ItemArgumentError> {
    if word.contains("://") {
        return Err(ItemArgumentError::Url(quotable(&url_without_credentials(
            word,
        ))));
    }
    if word.split('/').any(|component| component == "..") {
        return Err(ItemArgumentError::NotAnItem(quotable(word)));
    }
    if let Some(rest) = below(word, store_dir.as_str()) {
        return parse_in_store(word, rest, store_dir);
    }

    let other = [StoreDir::GUIX, StoreDir::NIX].into_iter();
    if let Some(theirs) = other.into_iter().find(|dir| below(word, dir).is_some()) {
        return Err(ItemArgumentError::OtherStore {
            word: quotable(word),
            theirs,
            ours: store_dir.as_str().to_owned(),
        });
    }

    // A base name, as lists of store items have it.
    let first = word.split('/').next().unwrap_or_default();
    if StorePathRef::parse(first).is_ok() {
        return parse_in_store(word, first, store_dir);
    }
    if word.contains("...") {
        return Err(ItemArgumentError::Placeholder(quotable(word)));
    }
    Err(ItemArgumentError::NotAnItem(quotable(word)))
}

/// The item that `word` names in `store_dir`, and the file in it that `word` names, or nothing.
///
/// # Errors
/// It names no item.
pub(crate) fn parse_with_file<'a>(
    word: &'a str,
    store_dir: &StoreDir,
) -> Result<(StorePath, &'a str), ItemArgumentError> {
    let item = parse(word, store_dir)?;
    let file = word.split_once(item.base()).map_or("", |(_, file)| file);
    Ok((item, file.trim_matches('/')))
}

/// The names in a list of items: one on each line, without empty lines and those that begin with `#`.
pub(crate) fn names_in(list: &str) -> impl Iterator<Item = &str> {
    let lines = list.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// What follows `directory` in `word`; `None` if nothing does.
fn below<'a>(word: &'a str, directory: &str) -> Option<&'a str> {
    let rest = word.strip_prefix(directory)?.strip_prefix('/')?;
    let rest = rest.trim_start_matches('/');
    (!rest.is_empty()).then_some(rest)
}

/// The item that `rest`, what follows the store directory in `word`, names or is in.
fn parse_in_store(
    word: &str,
    rest: &str,
    store_dir: &StoreDir,
) -> Result<StorePath, ItemArgumentError> {
    let base = rest.split('/').next().unwrap_or_default();
    let full_name = format!("{}/{base}", store_dir.as_str());
    match store_dir.parse_path(&full_name) {
        Ok(path) => Ok(path.to_path()),
        Err(_) if base.contains("...") => Err(ItemArgumentError::Placeholder(quotable(word))),
        Err(source) => Err(ItemArgumentError::Invalid {
            word: quotable(word),
            source,
        }),
    }
}

/// `word` for a message, cut to a sensible length.
fn quotable(word: &str) -> String {
    const QUOTED_BYTES_MAX: usize = 300;
    match clip(word, QUOTED_BYTES_MAX) {
        head if head.len() < word.len() => format!("{head}..."),
        _ => word.to_owned(),
    }
}

impl ItemArgumentError {
    /// What the user can do.
    #[must_use]
    pub(crate) fn hint(&self, advice: &Advice) -> String {
        match self {
            Self::Url(_) => {
                "servers are named with --substitute-urls; items by their full name, such as \
                 /gnu/store/...-hello-2.12.2"
                    .to_owned()
            }
            Self::OtherStore { theirs, .. } => {
                let command = advice.again_with("--store-dir", theirs);
                format!("{command} uses that store")
            }
            Self::Invalid {
                source: StorePathError::HashPart(_),
                ..
            } => {
                "a hash has 32 of the digits 0 to 9 and a to z, without e, o, t and u; was it copied \
                 completely?"
                    .to_owned()
            }
            Self::NotAnItem(word) => advice.name_of(word),
            Self::Placeholder(_) | Self::Invalid { .. } => advice.name_of(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "2fbf4kpwxg6i81i5ai6h7y8gr3vzd62g-hello-2.12";

    fn parsed(word: &str) -> Result<String, ItemArgumentError> {
        let guix = StoreDir::parse(StoreDir::GUIX).unwrap();
        parse(word, &guix).map(|path| path.base().to_owned())
    }

    #[test]
    fn an_item_is_named_in_several_ways() {
        for word in [
            BASE.to_owned(),
            format!("{BASE}/"),
            format!("{BASE}/bin/hello"),
            format!("/gnu/store/{BASE}"),
            format!("/gnu/store//{BASE}//"),
            format!("/gnu/store/{BASE}/bin/hello"),
            format!("/gnu/store/{BASE}/share/x y/..."),
        ] {
            assert_eq!(parsed(&word).unwrap(), BASE, "{word}");
        }
    }

    #[test]
    fn a_list_may_have_comments_and_empty_lines() {
        let list = "# what the job needs\n\n  a-1 \n\t# not now: b-2\nc-3#x";
        assert_eq!(names_in(list).collect::<Vec<_>>(), ["a-1", "c-3#x"]);
    }

    #[test]
    fn a_file_in_an_item_is_named_with_it() {
        let guix = StoreDir::parse(StoreDir::GUIX).unwrap();
        for (word, expected) in [
            (BASE.to_owned(), ""),
            (format!("/gnu/store/{BASE}//"), ""),
            (format!("{BASE}/bin/hello"), "bin/hello"),
            (format!("/gnu/store//{BASE}//bin/hello/"), "bin/hello"),
        ] {
            let (item, file) = parse_with_file(&word, &guix).unwrap();
            assert_eq!((item.base(), file), (BASE, expected), "{word}");
        }
        assert!(parse_with_file("bin/hello", &guix).is_err());
    }

    #[test]
    fn what_names_no_item_is_told_apart() {
        type Expected = fn(&ItemArgumentError) -> bool;
        let cases: [(&str, Expected); 9] = [
            ("hello", |e| matches!(e, ItemArgumentError::NotAnItem(_))),
            ("", |e| matches!(e, ItemArgumentError::NotAnItem(_))),
            ("./result", |e| matches!(e, ItemArgumentError::NotAnItem(_))),
            ("/gnu/store/", |e| {
                matches!(e, ItemArgumentError::NotAnItem(_))
            }),
            ("/gnu/stores/x", |e| {
                matches!(e, ItemArgumentError::NotAnItem(_))
            }),
            ("/gnu/store/...-hello-2.12", |e| {
                matches!(e, ItemArgumentError::Placeholder(_))
            }),
            ("/gnu/store/hello", |e| {
                matches!(e, ItemArgumentError::Invalid { .. })
            }),
            ("/nix/store/x", |e| {
                matches!(e, ItemArgumentError::OtherStore { .. })
            }),
            (
                "http://me:Sesame@a/x",
                |e| matches!(e, ItemArgumentError::Url(url) if !url.contains("Sesame")),
            ),
        ];
        for (word, is_expected) in cases {
            let error = parsed(word).unwrap_err();
            assert!(is_expected(&error), "{word}: {error:?}");
        }
    }

    #[test]
    fn a_file_outside_the_item_is_not_its_name() {
        for word in [
            format!("/gnu/store/{BASE}/../../etc"),
            format!("{BASE}/../x"),
            format!("{BASE}/.."),
            format!("/gnu/store/x/../{BASE}"),
        ] {
            let error = parsed(&word).unwrap_err();
            assert!(matches!(error, ItemArgumentError::NotAnItem(_)), "{word}");
        }
        assert_eq!(parsed(&format!("{BASE}/a..b/...")).unwrap(), BASE);
    }

    #[test]
    fn a_long_word_is_cut() {
        let error = parsed(&"x".repeat(1 << 20)).unwrap_err().to_string();
        assert!(error.len() < 400, "{}", error.len());
    }
}
