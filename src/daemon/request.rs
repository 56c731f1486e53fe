//! The daemon's requests, one line each, with parts separated by blanks. Pure.
//!
//! ```text
//! have PATH...                    with --query
//! info PATH...                    with --query
//! substitute PATH DESTINATION     with --substitute
//! ```

use std::path::{Path, PathBuf};

use crate::format::store_path::{StoreDir, StorePath, StorePathError};

/// Why a line is not a valid request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// The line is not UTF-8, which store paths always are.
    #[error("the request is not UTF-8")]
    NotText,
    /// The line is longer than [`LINE_MAX_BYTES`].
    #[error("the request is longer than {LINE_MAX_BYTES} bytes")]
    TooLong,
    /// The request is not known.
    #[error("unknown request `{}`", .0.escape_debug())]
    Unknown(String),
    /// Too few arguments, or too many.
    #[error("`{0}` takes {1}")]
    Arguments(&'static str, &'static str),
    /// An argument is not a store path.
    #[error(transparent)]
    Path(#[from] StorePathError),
}

/// The longest request: a line of this length names several hundred thousand items.
pub(crate) const LINE_MAX_BYTES: usize = 64 << 20;

/// The kinds of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueryKind {
    /// Which of the items can be substituted.
    Have,
    /// The same, with references and sizes.
    Info,
}

/// A query about items.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueryRequest {
    /// What is queried.
    pub(crate) kind: QueryKind,
    /// The items, each once.
    pub(crate) items: Vec<StorePath>,
    /// Why arguments are not store paths; the reply leaves these out.
    pub(crate) refused: Vec<StorePathError>,
}

impl QueryRequest {
    /// Parses a query.
    ///
    /// # Errors
    /// `line` is not a query, or it has no arguments.
    pub(crate) fn parse(line: &[u8], store_dir: &StoreDir) -> Result<Self, RequestError> {
        let mut words = words(line)?;
        let (kind, name) = match words.next() {
            Some("have") => (QueryKind::Have, "have"),
            Some("info") => (QueryKind::Info, "info"),
            other => return Err(RequestError::Unknown(other.unwrap_or_default().to_owned())),
        };
        let (mut items, mut refused) = (Vec::new(), Vec::new());
        let mut seen = std::collections::HashSet::new();

        for word in words {
            match store_dir.parse_path(word) {
                Ok(path) if !seen.insert(path) => {}
                Ok(path) => items.push(path.to_path()),
                Err(error) => refused.push(error),
            }
        }

        if items.is_empty() && refused.is_empty() {
            return Err(RequestError::Arguments(name, "at least one store path"));
        }

        Ok(Self {
            kind,
            items,
            refused,
        })
    }
}

/// A request to substitute an item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SubstituteRequest {
    /// The item.
    pub(crate) item: StorePath,
    /// Where to unpack it, usually the item's own name in the store.
    pub(crate) destination: PathBuf,
}

impl SubstituteRequest {
    /// The directory of the destination.
    pub(crate) fn parent(&self) -> &Path {
        match self.destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// Parses a substitution request.
    ///
    /// # Errors
    /// `line` is not a substitution of one item to one destination.
    pub(crate) fn parse(line: &[u8], store_dir: &StoreDir) -> Result<Self, RequestError> {
        let mut words = words(line)?;
        match words.next() {
            Some("substitute") => {}
            other => return Err(RequestError::Unknown(other.unwrap_or_default().to_owned())),
        }
        let (Some(item), Some(destination), None) = (words.next(), words.next(), words.next())
        else {
            return Err(RequestError::Arguments(
                "substitute",
                "a store path and a destination",
            ));
        };
        let item = store_dir.parse_path(item)?.to_path();

        Ok(Self {
            item,
            destination: destination.into(),
        })
    }
}

fn words(line: &[u8]) -> Result<impl Iterator<Item = &str>, RequestError> {
    let text = std::str::from_utf8(line).map_err(|_| RequestError::NotText)?;
    Ok(text.split_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "/gnu/store/kwshw0gv0ac63ggxg3s2zd0rim4ws6j4-grep-1.0";
    const B: &str = "/gnu/store/ih9594m1qjzs50cil1iamarvm8ywz4z0-libc6-1.0";

    fn dir() -> StoreDir {
        StoreDir::parse("/gnu/store").unwrap()
    }

    fn query(line: &str) -> Result<QueryRequest, RequestError> {
        QueryRequest::parse(line.as_bytes(), &dir())
    }

    #[test]
    fn queries_of_a_daemon_are_parsed() {
        let parsed = query(&format!("info {A} ")).unwrap();
        assert_eq!(parsed.kind, QueryKind::Info);
        assert_eq!(parsed.items.len(), 1);
        let parsed = query(&format!("have {A} {B} {A} ")).unwrap();
        assert_eq!(parsed.kind, QueryKind::Have);
        let names: Vec<_> = parsed
            .items
            .iter()
            .map(|item| dir().full_name(item))
            .collect();
        assert_eq!(names, [A, B]);
    }

    #[test]
    fn an_invalid_path_does_not_affect_the_others() {
        let parsed = query(&format!("info /etc/passwd {A} ../x")).unwrap();
        assert_eq!((parsed.items.len(), parsed.refused.len()), (1, 2));
    }

    #[test]
    fn invalid_queries_are_errors() {
        assert!(matches!(query(""), Err(RequestError::Unknown(_))));
        assert!(matches!(
            query("why \u{1b}[2J"),
            Err(RequestError::Unknown(_))
        ));
        assert!(matches!(query("info"), Err(RequestError::Arguments(..))));
        assert!(matches!(
            QueryRequest::parse(b"info \xff", &dir()),
            Err(RequestError::NotText)
        ));
        assert_eq!(
            query("\u{1b}x").unwrap_err().to_string(),
            "unknown request `\\u{1b}x`"
        );
    }

    #[test]
    fn substitution_requests_are_parsed() {
        let parse = |line: &str| SubstituteRequest::parse(line.as_bytes(), &dir());
        let wanted = parse(&format!("substitute {A} {A}.tmp")).unwrap();
        assert_eq!(wanted.destination, PathBuf::from(format!("{A}.tmp")));
        assert!(matches!(
            parse(&format!("substitute {A}")),
            Err(RequestError::Arguments(..))
        ));
        assert!(matches!(
            parse(&format!("substitute {A} x y")),
            Err(RequestError::Arguments(..))
        ));
        assert!(matches!(
            parse("substitute /tmp/x /tmp/y"),
            Err(RequestError::Path(_))
        ));
        assert!(matches!(
            parse(&format!("info {A}")),
            Err(RequestError::Unknown(_))
        ));
    }
}
