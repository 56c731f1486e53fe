//! Servers that refuse a part of one nar, for a reason of that nar's.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::{assert_complete, only};
use crate::support::server::Request;
use crate::support::{Reply, Server, item};

/// How the rest of the first nar is refused, of which it is requested.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    /// As if the file were shorter.
    NotSatisfiable,
    /// By another version of the file.
    OtherVersion,
    /// By the whole file, as a proxy does that has not stored it yet.
    Whole,
}

/// What `refusal` makes of the reply to a request for a range.
fn refuse(refusal: Refusal, request: &Request, directory: &std::path::Path) -> Reply {
    match refusal {
        Refusal::NotSatisfiable => Reply::new("416 Range Not Satisfiable", "no"),
        Refusal::OtherVersion => {
            let mut without_version = request.clone();
            without_version.fields.clear();
            Reply::version_or_range(directory, &without_version, "\"two\"")
        }
        Refusal::Whole => Reply::file(directory, request),
    }
}

#[test]
fn other_nars_are_resumed_after_one_was_not() {
    for refusal in [
        Refusal::NotSatisfiable,
        Refusal::OtherVersion,
        Refusal::Whole,
    ] {
        let (sandbox, fixture) = only("zstd");
        let directory = fixture.dir.clone();
        let (refused, begun) = (Mutex::new(None), Mutex::new(BTreeSet::new()));
        let server = Server::start(move |request| {
            let reply = Reply::file_or_range(&directory, request);
            if !request.path.starts_with("/nar/") {
                return reply;
            }
            if request.from.is_none() {
                let is_first = begun.lock().unwrap().insert(request.path.clone());
                let half = reply.body.len() / 2;
                return match is_first {
                    true => reply.cut_at(half),
                    false => reply,
                };
            }
            let mut refused = refused.lock().unwrap();
            match *refused.get_or_insert_with(|| request.path.clone()) == request.path {
                true => refuse(refusal, request, &directory),
                false => reply,
            }
        });
        sandbox
            .subst(&server.url(), &["fetch", "--jobs", "1", &item("sample")])
            .exits(0);
        assert_complete(&sandbox);

        let parts = server.ranges_of("/nar/").into_iter().flatten().count();
        assert_eq!(parts, 7, "{refusal:?}: one for each nar");
    }
}
