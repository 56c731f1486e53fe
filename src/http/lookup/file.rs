//! Lookups at a `file:` server: a thread that reads one small file after the other.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;
use url::Url;

use super::events::{CacheInfoText, EventSender, LookupEvent, NarInfoAnswer};
use super::request::Question;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::HashPart;
use crate::http::download::file::{file_failure, local_path, open};
use crate::http::error::{HttpError, HttpErrorClass, HttpErrorKind};
use crate::http::net::blocking;
use crate::http::net::runtime::HttpRuntime;
use crate::http::options::ServerSpec;

/// A directory that is asked like a server.
pub(in crate::http) struct FileServer {
    url: ServerUrl,
    questions: Sender<Question>,
    needs_cache_info: AtomicBool,
    /// Questions about items.
    sent: AtomicU64,
}

impl FileServer {
    /// Starts the thread that reads.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(in crate::http) fn open(
        runtime: &HttpRuntime,
        index: usize,
        spec: ServerSpec,
        events: EventSender,
    ) -> Result<Self, HttpError> {
        let (sender, questions) = crossbeam_channel::unbounded();
        let reader = Reader {
            index,
            url: spec.url.clone(),
            limit_bytes: runtime.options().narinfo_limit_bytes,
            questions,
            events,
            runtime: runtime.handle().clone(),
        };
        let failed = |cause| HttpError::setup(spec.url.as_str(), cause);
        blocking::start("file-server", move || reader.run()).map_err(failed)?;
        Ok(Self {
            url: spec.url,
            questions: sender,
            needs_cache_info: AtomicBool::new(spec.cache_info.is_none()),
            sent: AtomicU64::new(0),
        })
    }

    pub(in crate::http) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(in crate::http) fn url(&self) -> &ServerUrl {
        &self.url
    }

    pub(in crate::http) fn ask(&self, item: Option<HashPart>) {
        self.sent
            .fetch_add(u64::from(item.is_some()), Ordering::Relaxed);
        let needs_cache_info = self.needs_cache_info.swap(false, Ordering::Relaxed);
        let cache_info = needs_cache_info.then_some(Question::CacheInfo);
        for question in cache_info.into_iter().chain(item.map(Question::NarInfo)) {
            // The reader goes only after this sender.
            let _ = self.questions.send(question);
        }
    }
}

struct Reader {
    index: usize,
    url: ServerUrl,
    limit_bytes: u64,
    questions: Receiver<Question>,
    events: EventSender,
    runtime: Handle,
}

impl Reader {
    fn run(self) {
        let mut down = None;
        for question in &self.questions {
            let down = down.get_or_insert_with(|| self.find_directory());
            let text = match down {
                None => self.read(question),
                Some(error) => Err(error.clone()),
            };
            let size = text
                .as_ref()
                .ok()
                .and_then(Option::as_ref)
                .map_or(0, Vec::len);
            let reserved = self.runtime.block_on(self.events.reserve(size));
            self.events
                .send_reserved(reserved, self.event(question, text));
        }
    }

    /// Looks for the directory; reports why it is down, if it is.
    fn find_directory(&self) -> Option<HttpError> {
        let base = self.url.base();
        let error = find_directory(base)
            .err()
            .map(|kind| HttpError::new(base, kind))?;
        self.events.send(LookupEvent::ServerDown {
            server: self.index,
            error: error.clone(),
        });
        Some(error)
    }

    fn read(&self, question: Question) -> Result<Option<Vec<u8>>, HttpError> {
        let url = question.url(&self.url);
        read_small(&url, self.limit_bytes).map_err(|kind| HttpError::new(&url, kind))
    }

    fn event(&self, question: Question, text: Result<Option<Vec<u8>>, HttpError>) -> LookupEvent {
        let (server, max_age) = (self.index, None);
        match question {
            Question::CacheInfo => {
                let info = text.map(|text| {
                    let text = text.map(|text| String::from_utf8_lossy(&text).into_owned());
                    text.map(|text| CacheInfoText { text, max_age })
                });
                LookupEvent::CacheInfo { server, info }
            }
            Question::NarInfo(item) => {
                let answer = text.map(|text| match text {
                    Some(text) => NarInfoAnswer::Found { text, max_age },
                    None => NarInfoAnswer::Missing {
                        status: 404,
                        max_age,
                    },
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

/// Whether there is a directory at `url`: only then does a missing file say that an item is
/// missing.
fn find_directory(url: &Url) -> Result<(), HttpErrorKind> {
    let error = match local_path(url)?.metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => io::ErrorKind::NotADirectory.into(),
        Err(error) => error,
    };
    Err(HttpErrorKind::Directory(Arc::new(error)))
}

/// A small file as a whole; none: there is no such file.
fn read_small(url: &Url, limit_bytes: u64) -> Result<Option<Vec<u8>>, HttpErrorKind> {
    let (file, length) = match open(url) {
        Ok(opened) => opened,
        Err(error) if error.class() == HttpErrorClass::Absent => return Ok(None),
        Err(error) => return Err(error),
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
