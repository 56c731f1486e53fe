//! Lookups on a `file:` server: a thread that reads one small file after the other.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;
use tracing::trace;
use url::Url;

use super::events::{CacheInfoText, EventSender, LookupEvent, NarInfoAnswer};
use super::request::RequestTarget;
use super::response::check_text;
use crate::format::server_list::ServerIndex;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::HashPart;
use crate::http::download::file::{file_failure, local_path, open};
use crate::http::error::{HttpError, HttpErrorClass, HttpErrorKind};
use crate::http::net::blocking;
use crate::http::net::runtime::HttpRuntime;
use crate::http::options::ServerSpec;

/// A directory with the files of a server.
pub(super) struct FileServer {
    url: ServerUrl,
    /// `None` stands for a new look whether the directory can be opened.
    requests: Sender<Option<RequestTarget>>,
    needs_cache_info: AtomicBool,
    /// Requests for items.
    sent: AtomicU64,
}

impl FileServer {
    /// Starts the thread that reads.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn open(
        runtime: &HttpRuntime,
        index: ServerIndex,
        spec: ServerSpec,
        events: EventSender,
    ) -> Result<Self, HttpError> {
        let (sender, requests) = crossbeam_channel::unbounded();
        let reader = DirectoryReader {
            index,
            url: spec.url.clone(),
            limit_bytes: runtime.options().narinfo_limit_bytes,
            requests,
            events,
            runtime: runtime.handle().clone(),
        };
        blocking::start("file-server", move || reader.run())
            .map_err(|cause| HttpError::setup(spec.url.as_str(), cause))?;
        Ok(Self {
            url: spec.url,
            requests: sender,
            needs_cache_info: AtomicBool::new(spec.cache_info.is_none()),
            sent: AtomicU64::new(0),
        })
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Queues the request for `item`; before the first one, that for `nix-cache-info`.
    pub(super) fn request(&self, item: Option<HashPart>) {
        self.sent
            .fetch_add(u64::from(item.is_some()), Ordering::Relaxed);
        let needs_cache_info = self.needs_cache_info.swap(false, Ordering::Relaxed);
        let cache_info = needs_cache_info.then_some(RequestTarget::CacheInfo);
        let item = item.map(RequestTarget::NarInfo);
        for target in cache_info.into_iter().chain(item) {
            // The reader ends only after this sender.
            let _ = self.requests.send(Some(target));
        }
    }

    /// Reads again from a directory that could not be opened.
    pub(super) fn reopen(&self) {
        self.needs_cache_info.store(true, Ordering::Relaxed);
        let _ = self.requests.send(None);
    }
}

struct DirectoryReader {
    index: ServerIndex,
    url: ServerUrl,
    limit_bytes: u64,
    requests: Receiver<Option<RequestTarget>>,
    events: EventSender,
    runtime: Handle,
}

/// The content of a file; none: there is no such file.
type FileText = Result<Option<Vec<u8>>, HttpError>;

impl DirectoryReader {
    fn run(self) {
        let mut down = None;
        for target in &self.requests {
            let Some(target) = target else {
                down = None;
                continue;
            };
            let down = down.get_or_insert_with(|| self.check_directory());
            let text = match down {
                None => self.read(target),
                Some(error) => Err(error.clone()),
            };
            let size = match &text {
                Ok(Some(text)) => text.len(),
                Ok(None) | Err(_) => 0,
            };
            trace!(
                server = self.url.as_str(),
                ?target,
                bytes = size,
                "file read"
            );

            let reserved = self.runtime.block_on(self.events.reserve(size));
            self.events
                .send_reserved(reserved, self.event(target, text));
        }
    }

    /// Reports the server as down, and why, if its directory cannot be opened.
    fn check_directory(&self) -> Option<HttpError> {
        let base = self.url.base();
        let kind = find_directory(base).err()?;
        let error = HttpError::new(base, kind);
        self.events.send(LookupEvent::ServerDown {
            server: self.index,
            error: error.clone(),
        });
        Some(error)
    }

    fn read(&self, target: RequestTarget) -> FileText {
        let url = target.url(&self.url);
        read_small(&url, self.limit_bytes)
            .and_then(|text| text.map(|text| check_text(target, text, None)).transpose())
            .map_err(|kind| HttpError::new(&url, with_path(kind, &url)))
    }

    fn event(&self, target: RequestTarget, text: FileText) -> LookupEvent {
        let (server, max_age) = (self.index, None);
        let text = match text {
            Ok(text) => text,
            Err(error) => return LookupEvent::failed(server, target, error),
        };
        match target {
            RequestTarget::CacheInfo => {
                let text = text.map(|text| String::from_utf8_lossy(&text).into_owned());
                let info = Ok(text.map(|text| CacheInfoText { text, max_age }));
                LookupEvent::CacheInfo { server, info }
            }
            RequestTarget::NarInfo(item) => {
                let answer = Ok(match text {
                    Some(text) => NarInfoAnswer::Found { text, max_age },
                    None => NarInfoAnswer::Missing { status: 0, max_age },
                });
                LookupEvent::Answer {
                    server,
                    item,
                    answer,
                }
            }
        }
    }
}

/// An error unless there is a directory at `url`: only then does a missing file say that an item
/// is missing.
fn find_directory(url: &Url) -> Result<(), HttpErrorKind> {
    let error = match local_path(url)?.metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => std::io::ErrorKind::NotADirectory.into(),
        Err(error) => error,
    };
    Err(HttpErrorKind::Directory(Arc::new(error)))
}

/// A failure to read the file at `url`, with its path.
fn with_path(kind: HttpErrorKind, url: &Url) -> HttpErrorKind {
    match (kind, local_path(url)) {
        (HttpErrorKind::File(source), Ok(path)) => HttpErrorKind::NamedFile {
            path: path.display().to_string(),
            source,
        },
        (kind, _) => kind,
    }
}

/// A small file as a whole; none: there is no such file.
fn read_small(url: &Url, limit_bytes: u64) -> Result<Option<Vec<u8>>, HttpErrorKind> {
    let (file, length) = match open(url) {
        Ok(opened) => opened,
        Err(kind) if kind.class() == HttpErrorClass::Absent => return Ok(None),
        Err(kind) => return Err(kind),
    };
    let mut text = Vec::with_capacity(usize::try_from(length.min(limit_bytes)).unwrap_or(0));
    file.take(limit_bytes + 1)
        .read_to_end(&mut text)
        .map_err(file_failure)?;
    if text.len() as u64 > limit_bytes {
        return Err(HttpErrorKind::TooLarge { limit_bytes });
    }
    Ok(Some(text))
}
