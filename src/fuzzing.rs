//! Entry points of the fuzz targets in `tests/fuzz`, to modules that are not public, with what must be
//! true of every input. Compiled with `cfg(fuzzing)` only.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::cli::nix_conf::{self, NixConfPlaces};
use crate::daemon::options::{DaemonOptions, ProgressStyle};
use crate::daemon::request::{QueryRequest, SubstituteRequest};
use crate::format::cache_info::CacheInfo;
use crate::format::nar::EntryName;
use crate::format::store_path::{Dialect, StoreDir};
use crate::store::Links;
use crate::store::unpack::{Chunks, Destination, Unpacked, WriterPool, open_directory, unpack};

/// The `nix-cache-info` of a server: what is understood prints to a text that means the same.
pub fn cache_info(text: &str) {
    let info = CacheInfo::parse(text);
    let mut printed = format!("WantMassQuery: {}\n", u8::from(info.want_mass_query));
    if let Some(store_dir) = &info.store_dir {
        printed.push_str(&format!("StoreDir: {store_dir}\n"));
    }
    if let Some(priority) = info.priority {
        printed.push_str(&format!("Priority: {priority}\n"));
    }
    assert_eq!(CacheInfo::parse(&printed), info);
}

/// The responses of a server over HTTP/1.1, which arrive in parts of `part_bytes`.
pub fn http_responses(bytes: &[u8], part_bytes: usize) {
    crate::http::check_responses(bytes, part_bytes);
}

/// What an object store and its services answer: a list of objects, or an access key.
pub fn object_store_responses(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::http::check_list(text);
    }
    crate::http::check_key_response(bytes);
}

/// A line that guix-daemon sends to its helper, as a query and as a substitution.
pub fn helper_request(line: &[u8]) {
    let store_dir = StoreDir::parse(StoreDir::GUIX).expect("a constant");
    if let Ok(query) = QueryRequest::parse(line, &store_dir) {
        let names: HashSet<String> = query
            .items
            .iter()
            .map(|item| store_dir.full_name(item))
            .collect();
        assert_eq!(names.len(), query.items.len());
        for name in &names {
            store_dir.parse_path(name).expect("it was parsed before");
        }
        assert!(!query.items.is_empty() || !query.refused.is_empty());
    }

    if let Ok(request) = SubstituteRequest::parse(line, &store_dir) {
        assert!(!request.parent().as_os_str().is_empty());
        let name = store_dir.full_name(&request.item);
        let printed = format!("substitute {name} {}", request.destination.display());
        let again = SubstituteRequest::parse(printed.as_bytes(), &store_dir);
        assert_eq!(again, Ok(request));
    }
}

/// The value of `_NIX_OPTIONS`.
pub fn daemon_options(text: &str) {
    let options = DaemonOptions::parse(text);
    if let ProgressStyle::Text { columns } = options.progress_style {
        assert!((20..=1000).contains(&columns));
    }
    for url in options.substitute_urls().into_iter().flatten() {
        assert!(text.contains(url.as_str()));
        assert!(!url.contains(char::is_whitespace));
    }
}

/// The keys in the nix.conf at `path`, if it can be read and has some.
pub fn nix_conf_keys(path: &Path) -> Option<String> {
    let places = NixConfPlaces {
        system: path.to_owned(),
        user: Vec::new(),
        variable: None,
    };
    let conf = nix_conf::read(&places, None).ok()?;
    let lists: Vec<String> = conf.keys?.into_iter().map(|keys| keys.list).collect();
    assert!(conf.warnings.is_empty() || lists.is_empty());
    Some(lists.join(" "))
}

/// Unpacks `nar` to the entry `tree` of `directory`, with deduplication in `directory` if so chosen; `None` if
/// it is refused. The tree is removed when the result is dropped.
pub fn unpack_tree(nar: &[u8], directory: &Path, is_deduplicated: bool) -> Option<Unpacked> {
    static POOL: OnceLock<WriterPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| WriterPool::new(1).expect("a thread can be started"));
    let parent = open_directory(directory).expect("the directory can be opened");
    let name = EntryName::new(b"tree").expect("a constant");
    let links = is_deduplicated
        .then(|| Arc::new(Links::open(directory).expect("the directory can be opened")));

    let chunks = WholeNar(Bytes::copy_from_slice(nar));
    let destination = Destination::new(parent, directory.to_owned(), name);
    unpack(chunks, Dialect::Guix, destination, pool, links).ok()
}

/// A nar in one chunk.
struct WholeNar(Bytes);

impl Chunks for WholeNar {
    fn next_chunk(&mut self) -> io::Result<Bytes> {
        Ok(std::mem::take(&mut self.0))
    }
}
