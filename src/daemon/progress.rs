//! Progress for the client: build trace lines, or text.
//!
//! A trace line is `@ EVENT DESTINATION URL SIZE [TRANSFERRED]`, one blank between fields, `-`
//! for an unknown size. Clients match lines by destination alone and fail on an end without a
//! beginning, so a download is reported as started once, even if its first source fails.
//!
//! The files of `file:` servers are never quoted: clients may name any directory.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::format::escape::printable;
use crate::substitute::preparation::wait_text;
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::substitute::servers::retry_text;
use crate::sync::lock;

use super::log::ClientLog;
use super::options::ProgressStyle;
use super::wording;

/// The shortest time between two reports of the same progress.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);

/// Reports progress to the client.
pub(crate) struct ClientProgress {
    log: Arc<ClientLog>,
    progress_style: ProgressStyle,
    servers: Vec<String>,
    state: Mutex<ClientProgressState>,
}

#[derive(Default)]
struct ClientProgressState {
    /// The daemon waits for the reply to a query.
    is_looking_up: bool,
    /// The client has been shown that a lookup is in progress.
    is_lookup_shown: bool,
    lookup_reported: Option<Instant>,
    download: Option<ReportedDownload>,
}

/// The item that is being substituted.
struct ReportedDownload {
    destination: String,
    /// The URL as reported to the client; empty until the download starts.
    url: String,
    size: Option<u64>,
    started: Instant,
    reported: Instant,
}

impl ClientProgress {
    /// Reports to `log` in the given style; `servers` are named while lookups run.
    #[must_use]
    pub(crate) fn new(
        log: Arc<ClientLog>,
        progress_style: ProgressStyle,
        servers: Vec<String>,
    ) -> Self {
        Self {
            log,
            progress_style,
            servers,
            state: Mutex::default(),
        }
    }

    /// Reports lookups while `work` runs.
    pub(crate) fn during_lookup<T>(&self, work: impl FnOnce() -> T) -> T {
        self.state().is_looking_up = true;
        let result = work();
        let mut state = self.state();
        state.is_looking_up = false;

        if std::mem::take(&mut state.is_lookup_shown) {
            self.log.open_line(&wording::looking(&self.servers, 1, 1));
            self.log.end_line();
        }
        drop(state);
        result
    }

    /// Reports downloads while `work` runs, as one to `destination`.
    pub(crate) fn during_substitution<T>(&self, destination: &str, work: impl FnOnce() -> T) -> T {
        let now = Instant::now();
        self.state().download = Some(ReportedDownload {
            destination: destination.to_owned(),
            url: String::new(),
            size: None,
            started: now,
            reported: now,
        });
        let result = work();
        self.state().download = None;
        self.log.end_line();

        result
    }

    fn state(&self) -> MutexGuard<'_, ClientProgressState> {
        lock(&self.state)
    }

    fn looking(&self, done: usize, total: usize) {
        let mut state = self.state();
        let is_due = state
            .lookup_reported
            .is_none_or(|time| time.elapsed() >= INTERVAL);
        if state.is_looking_up && is_due {
            state.lookup_reported = Some(Instant::now());
            state.is_lookup_shown = true;
            self.log
                .open_line(&wording::looking(&self.servers, done, total));
        }
    }

    fn started(&self, url: &str, size: Option<u64>) {
        let mut state = self.state();
        let Some(download) = &mut state.download else {
            return;
        };

        let is_first = download.url.is_empty();
        match self.progress_style {
            ProgressStyle::BuildTrace if !is_first => return,
            ProgressStyle::BuildTrace => {
                let (destination, size) = (&download.destination, size_word(size));
                let line = format!("@ download-started {destination} {url} {size}\n");
                self.log.lines(&line);
            }
            ProgressStyle::Text { .. } => self
                .log
                .lines(&format!("Downloading {}...\n", printable(url))),
        }
        let now = Instant::now();
        url.clone_into(&mut download.url);
        (download.size, download.started, download.reported) = (size, now, now);
    }

    fn progressed(&self, received: u64) {
        let mut state = self.state();
        let Some(download) = &mut state.download else {
            return;
        };

        // Half an interval of tolerance: this is called once per interval.
        if received > 0 && !download.url.is_empty() && download.reported.elapsed() >= INTERVAL / 2 {
            download.reported = Instant::now();
            match self.progress_style {
                ProgressStyle::BuildTrace => self.log.lines(&download.trace_line(received)),
                ProgressStyle::Text { columns } => self.show_text(download, received, columns),
            }
        }
    }

    fn unpacked(&self, received: u64) {
        let mut state = self.state();
        let Some(download) = state
            .download
            .take()
            .filter(|download| !download.url.is_empty())
        else {
            return;
        };

        match self.progress_style {
            ProgressStyle::BuildTrace => {
                let total = download.size.unwrap_or(received);
                let (destination, url) = (&download.destination, &download.url);
                let mut lines = download.trace_line(total);
                lines.push_str(&format!(
                    "@ download-succeeded {destination} {url} {total}\n\n"
                ));
                self.log.lines(&lines);
            }
            ProgressStyle::Text { columns } => {
                self.show_text(&download, received, columns);
                self.log.lines("\n");
            }
        }
    }

    fn show_text(&self, download: &ReportedDownload, received: u64, columns: u16) {
        let name = printable(wording::short_name(&download.url)).into_owned();
        let elapsed = download.started.elapsed();
        let line = wording::download(&name, download.size, received, elapsed, columns.into());
        if let Some(line) = line {
            self.log.open_line(&line);
        }
    }
}

impl ReportedDownload {
    fn trace_line(&self, received: u64) -> String {
        let Self {
            destination,
            url,
            size,
            ..
        } = self;
        let size = size_word(*size);
        format!("@ download-progress {destination} {url} {size} {received}\n")
    }
}

/// Whether `url` is that of a `file:` server. Reasons may quote its files, which this process reads
/// with the rights of root for a client who may not.
fn is_directory(url: &str) -> bool {
    url.starts_with("file:")
}

fn size_word(size: Option<u64>) -> String {
    size.map_or_else(|| "-".to_owned(), |size| size.to_string())
}

impl Progress for ClientProgress {
    fn event(&self, event: ProgressEvent<'_>) {
        match event {
            ProgressEvent::Looking {
                done, total, asked, ..
            } if asked > 0 => self.looking(done, total),
            ProgressEvent::ServerDown { server, .. } if is_directory(server) => {
                self.log.warn(&format!(
                    "{server} is not used; `subst servers` shows the reason to users who may read \
                     it"
                ));
            }
            ProgressEvent::ServerDown { server, reason } => {
                self.log.warn(&format!("{server} is not used: {reason}"));
            }
            ProgressEvent::Retrying {
                server,
                is_too_busy,
                failing_for,
                ..
            } => self.log.warn(&retry_text(server, is_too_busy, failing_for)),
            ProgressEvent::Preparing {
                items,
                waited,
                limit,
                is_first: true,
            } => self.log.warn(&wait_text(items, waited, limit)),
            ProgressEvent::Warning(text) => self.log.warn(text),
            ProgressEvent::Started {
                url, download_size, ..
            } => self.started(url, download_size),
            ProgressEvent::Progressed { downloaded, .. } => self.progressed(downloaded),
            ProgressEvent::SourceFailed { url, .. } if is_directory(url) => {
                self.log.warn(&format!("download from {url} failed"));
            }
            ProgressEvent::SourceFailed { url, reason, .. } => {
                self.log
                    .warn(&format!("download from {url} failed: {reason}"));
            }
            ProgressEvent::Unpacked { downloaded, .. } => self.unpacked(downloaded),
            ProgressEvent::Looking { .. }
            | ProgressEvent::Preparing { .. }
            | ProgressEvent::Verifying { .. }
            | ProgressEvent::Comparing { .. }
            | ProgressEvent::Mirroring { .. }
            | ProgressEvent::Planned { .. }
            | ProgressEvent::DownloadsPlanned(_)
            | ProgressEvent::Registered { .. }
            | ProgressEvent::Failed { .. }
            | ProgressEvent::Tick
            | ProgressEvent::Finished => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;
    use crate::format::compression::Compression;
    use crate::format::store_path::StorePath;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn progress(progress_style: ProgressStyle) -> (ClientProgress, Sink) {
        let sink = Sink::default();
        let log = Arc::new(ClientLog::to(Box::new(sink.clone())));
        (
            ClientProgress::new(log, progress_style, vec!["http://h".to_owned()]),
            sink,
        )
    }

    fn item() -> StorePath {
        StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap()
    }

    fn started(progress: &ClientProgress, url: &str, download_size: Option<u64>) {
        let (item, announced, choice) = (&item(), None, None);
        progress.event(ProgressEvent::Started {
            item,
            server: "http://a",
            url,
            compression: Compression::Zstd,
            download_size,
            announced,
            choice,
        });
    }

    fn unpacked(progress: &ClientProgress, downloaded: u64) {
        progress.event(ProgressEvent::Unpacked {
            item: &item(),
            downloaded,
            nar_size: 0,
            deduplicated: 0,
        });
    }

    #[test]
    fn a_trace_starts_once_and_ends_once() {
        let (progress, sink) = progress(ProgressStyle::BuildTrace);
        progress.during_substitution("/s/x", || {
            started(&progress, "http://a/x", Some(7));
            started(&progress, "http://b/x", None);
            unpacked(&progress, 7);
            unpacked(&progress, 7);
        });
        let expected = "@ download-started /s/x http://a/x 7\n\
            @ download-progress /s/x http://a/x 7 7\n\
            @ download-succeeded /s/x http://a/x 7\n\n";
        assert_eq!(sink.text(), expected);
    }

    #[test]
    fn an_unknown_size_is_a_dash_until_the_end() {
        let (progress, sink) = progress(ProgressStyle::BuildTrace);
        progress.during_substitution("/s/x", || {
            started(&progress, "http://a/x", None);
            unpacked(&progress, 5);
        });
        let expected = "@ download-started /s/x http://a/x -\n\
            @ download-progress /s/x http://a/x - 5\n\
            @ download-succeeded /s/x http://a/x 5\n\n";
        assert_eq!(sink.text(), expected);
    }

    #[test]
    fn a_trace_without_a_start_is_not_written() {
        let (progress, sink) = progress(ProgressStyle::BuildTrace);
        unpacked(&progress, 5);
        progress.during_substitution("/s/x", || {
            progress.event(ProgressEvent::Progressed {
                item: &item(),
                downloaded: 5,
            });
            unpacked(&progress, 5);
        });
        assert_eq!(sink.text(), "");
    }

    #[test]
    fn a_text_line_ends_before_another_message() {
        let (progress, sink) = progress(ProgressStyle::Text { columns: 60 });
        progress.during_substitution("/s/x", || {
            started(&progress, "http://a/x", Some(7));
            unpacked(&progress, 7);
        });
        let text = sink.text();
        assert!(
            text.starts_with("Downloading http://a/x...\n\r\u{1b}[K x  7B "),
            "{text:?}"
        );
        assert!(text.ends_with("100.0%\n\n"), "{text:?}");
    }

    #[test]
    fn lookups_are_reported_only_during_a_query_with_requests_to_servers() {
        let (progress, sink) = progress(ProgressStyle::BuildTrace);
        let looking = |asked| ProgressEvent::Looking {
            done: 1,
            total: 2,
            asked,
            requests: 0,
            servers: &[],
        };
        progress.event(looking(1));
        progress.during_lookup(|| progress.event(looking(0)));
        assert_eq!(sink.text(), "");
        progress.during_lookup(|| {
            progress.event(looking(1));
            progress.event(looking(1));
        });
        let line =
            |percent| format!("\r\u{1b}[Klooking for substitutes on 'http://h'... {percent}%");
        assert_eq!(sink.text(), format!("{}{}\n", line(" 50.0"), line("100.0")));
    }

    #[test]
    fn warnings_are_escaped() {
        let (progress, sink) = progress(ProgressStyle::BuildTrace);
        progress.event(ProgressEvent::Warning("\u{1b}[2J"));
        assert_eq!(sink.text(), "subst: warning: \\u{1b}[2J\n");
    }
}
