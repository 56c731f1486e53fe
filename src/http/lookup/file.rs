//! Lookups at a `file:` server: a thread that reads one small file after the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;

use super::events::{CacheInfoText, EventSender, LookupEvent, NarInfoAnswer};
use super::request::Question;
use crate::format::server_url::ServerUrl;
use crate::format::store_path::HashPart;
use crate::http::download::file;
use crate::http::error::HttpError;
use crate::http::net::blocking;
use crate::http::net::runtime::Engine;
use crate::http::options::{CacheInfoKnowledge, ServerSpec};

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
        engine: &Engine,
        index: usize,
        spec: ServerSpec,
        events: EventSender,
    ) -> Result<Self, HttpError> {
        let (sender, questions) = crossbeam_channel::unbounded();
        let reader = Reader {
            index,
            url: spec.url.clone(),
            limit_bytes: engine.options().narinfo_limit_bytes,
            questions,
            events,
            runtime: engine.handle().clone(),
        };
        let failed = |cause| HttpError::setup(spec.url.as_str(), cause);
        blocking::start("file-server", move || reader.run()).map_err(failed)?;
        Ok(Self {
            url: spec.url,
            questions: sender,
            needs_cache_info: AtomicBool::new(spec.cache_info == CacheInfoKnowledge::Ask),
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
            let room = self.runtime.block_on(self.events.room(size));
            self.events.send_in(room, self.event(question, text));
        }
    }

    /// Looks for the directory; reports why it is down, if it is.
    fn find_directory(&self) -> Option<HttpError> {
        let base = self.url.base();
        let error = file::find_directory(base)
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
        file::read_small(&url, self.limit_bytes).map_err(|kind| HttpError::new(&url, kind))
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
