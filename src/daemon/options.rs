//! Options that guix-daemon passes to its helper: `KEY=VALUE` lines in `_NIX_OPTIONS`.
//!
//! Keys with `untrusted-` in front come from the client and win over the administrator's,
//! as far as a client may decide: which keys are authorized is not among them. Of two lines with
//! the same key the first counts. Unknown keys, and lines without `=`, are ignored;
//! `locale` is, because messages are not translated.

/// The options of the daemon and its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonOptions {
    /// The substitute servers of the administrator, not parsed; `None` if the option is not set.
    pub(crate) administrator_urls: Option<Vec<String>>,
    /// Those of the client, which any user of the machine may have started.
    pub(crate) client_urls: Option<Vec<String>>,
    /// Whether servers discovered in the local network are used as well.
    pub(crate) discover: bool,
    /// How progress is reported.
    pub(crate) progress_style: ProgressStyle,
    /// Whether files of items in the store are to be deduplicated.
    pub(crate) deduplicate: bool,
}

/// How progress is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgressStyle {
    /// In build trace lines, for the client program.
    BuildTrace,
    /// In text for a terminal.
    Text {
        /// The width to use.
        columns: u16,
    },
}

impl DaemonOptions {
    /// Parses the value of `_NIX_OPTIONS`.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        let trace = client_value(text, "print-extended-build-trace").and_then(number);
        let columns = client_value(text, "terminal-columns").and_then(number);

        Self {
            administrator_urls: value(text, "substitute-urls").map(words),
            client_urls: value(text, "untrusted-substitute-urls").map(words),
            discover: value(text, "discover") == Some("true"),
            progress_style: if trace.is_some_and(|level| level > 0) {
                ProgressStyle::BuildTrace
            } else {
                ProgressStyle::Text {
                    columns: columns.map_or(DEFAULT_COLUMNS, usable_columns),
                }
            },
            deduplicate: value(text, "deduplicate") == Some("yes"),
        }
    }

    /// The substitute servers to use: the client's, else the administrator's.
    #[must_use]
    pub(crate) fn substitute_urls(&self) -> Option<&[String]> {
        let urls = self.client_urls.as_ref();
        urls.or(self.administrator_urls.as_ref()).map(Vec::as_slice)
    }
}

fn words(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

/// The value that the client sets, else the administrator's.
fn client_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    value(text, &format!("untrusted-{key}")).or_else(|| value(text, key))
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut options = text.lines().filter_map(|line| line.split_once('='));
    options
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value)
}

fn number(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// The terminal width without its last column, within sensible limits.
fn usable_columns(columns: i64) -> u16 {
    u16::try_from(columns.saturating_sub(1).max(0))
        .unwrap_or(MAX_COLUMNS)
        .clamp(MIN_COLUMNS, MAX_COLUMNS)
}

const DEFAULT_COLUMNS: u16 = 80;
const MIN_COLUMNS: u16 = 20;
const MAX_COLUMNS: u16 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_daemon_are_parsed() {
        let text = "build-fallback=false\ndeduplicate=yes\nlocale=C.UTF-8\nnoise\n\
            print-extended-build-trace=1\nsubstitute-urls=http://a  http://b\nterminal-columns=80\n";
        let options = DaemonOptions::parse(text);
        let urls = vec!["http://a".to_owned(), "http://b".to_owned()];
        assert_eq!(options.administrator_urls, Some(urls.clone()));
        assert_eq!(options.substitute_urls(), Some(&urls[..]));
        assert_eq!(options.client_urls, None);
        assert_eq!(options.progress_style, ProgressStyle::BuildTrace);
        assert!(options.deduplicate);
        assert!(!options.discover);
    }

    #[test]
    fn the_client_overrides_the_administrator_where_it_may() {
        let text = "substitute-urls=http://admin\nprint-extended-build-trace=1\ndiscover=true\n\
            untrusted-substitute-urls=\nuntrusted-print-extended-build-trace=0\n\
            untrusted-terminal-columns=120\nterminal-columns=60\n";
        let options = DaemonOptions::parse(text);
        let list = options.substitute_urls();
        assert_eq!(list, Some(&[][..]), "an empty list is a list");
        let administrator = Some(vec!["http://admin".to_owned()]);
        assert_eq!(options.administrator_urls, administrator);
        assert_eq!(options.progress_style, ProgressStyle::Text { columns: 119 });
        assert!(options.discover);
    }

    #[test]
    fn defaults_apply_without_a_daemon() {
        let options = DaemonOptions::parse("");
        assert_eq!(options.substitute_urls(), None);
        assert_eq!(options.progress_style, ProgressStyle::Text { columns: 80 });
        assert!(!options.deduplicate);
    }

    #[test]
    fn invalid_values_select_the_defaults() {
        assert!(!DaemonOptions::parse("deduplicate=no").deduplicate);
        let columns = |text: &str| match DaemonOptions::parse(text).progress_style {
            ProgressStyle::Text { columns } => columns,
            ProgressStyle::BuildTrace => 0,
        };
        assert_eq!(columns("terminal-columns=wide"), 80);
        assert_eq!(columns("terminal-columns=3"), 20);
        assert_eq!(columns("terminal-columns=-9223372036854775808"), 20);
        assert_eq!(columns("terminal-columns=9223372036854775807"), 1000);
        assert_eq!(columns("print-extended-build-trace=x"), 80);
    }
}
