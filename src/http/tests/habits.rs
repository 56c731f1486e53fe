//! What servers do, one line for each habit: what a lookup and the download of a nar make of it.

use url::Url;

use super::encodings::{brotli, gzip, nar, zlib, zstd};
use crate::format::compression::Compression;
use crate::http::testing::*;
use crate::http::*;

/// How a body is sent.
#[derive(Clone, Copy)]
enum Sent {
    Plain,
    Chunked,
    /// In chunks with extensions, and fields after them.
    ChunkedWithExtras,
    /// With a line end that belongs to nothing.
    WithLineEnd,
    Gzip,
    Zlib,
    Zstd,
    Brotli,
    /// Half of it, and then the connection is closed.
    Half,
    HalfChunked,
    /// This text instead.
    Text(&'static str),
}
use Sent::*;

/// What the client makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Good,
    /// It is received, and for hash and signature to refuse.
    Other,
    Missing,
    Preparing,
    Transient,
    Refused,
}
use Seen::*;

/// Name, head, and how the body is sent; what a lookup and a download see. In the head, `|` is a line end, `{n}` the
/// length of the body, `{path}` the request's path; `{fields}` are many fields.
type Habit = (&'static str, &'static str, Sent, Seen, Seen);

#[rustfmt::skip]
const HABITS: [Habit; 85] = [
    // Where a body ends.
    ("a length", "HTTP/1.1 200 OK|Content-Length: {n}", Plain, Good, Good),
    ("chunks", "HTTP/1.1 200 OK|Transfer-Encoding: chunked", Chunked, Good, Good),
    ("chunks with extensions and trailers", "HTTP/1.1 200 OK|Transfer-Encoding: chunked", ChunkedWithExtras, Good, Good),
    ("chunks, capitalized", "HTTP/1.1 200 OK|TRANSFER-ENCODING: Chunked", Chunked, Good, Good),
    ("the end of the connection", "HTTP/1.1 200 OK|Server: x", Plain, Good, Good),
    ("the end of the connection, announced", "HTTP/1.1 200 OK|Connection: close", Plain, Good, Good),
    ("a length, and the end of the connection", "HTTP/1.1 200 OK|Content-Length: {n}|Connection: close", Plain, Good, Good),
    ("HTTP/1.0", "HTTP/1.0 200 OK|Server: x", Plain, Good, Good),
    ("HTTP/1.0 with a length", "HTTP/1.0 200 OK|Content-Length: {n}", Plain, Good, Good),
    ("HTTP/1.0 that stays open", "HTTP/1.0 200 OK|Connection: keep-alive|Content-Length: {n}", Plain, Good, Good),
    ("a length twice", "HTTP/1.1 200 OK|Content-Length: {n}|Content-Length: {n}", Plain, Good, Good),
    ("a length twice in one field", "HTTP/1.1 200 OK|Content-Length: {n}, {n}", Plain, Good, Good),
    ("two lengths", "HTTP/1.1 200 OK|Content-Length: {n}|Content-Length: 7", Plain, Transient, Transient),
    ("two lengths in one field", "HTTP/1.1 200 OK|Content-Length: {n}, 7", Plain, Transient, Transient),
    ("a length with a sign", "HTTP/1.1 200 OK|Content-Length: +{n}", Plain, Transient, Transient),
    ("a length with a unit", "HTTP/1.1 200 OK|Content-Length: {n} bytes", Plain, Transient, Transient),
    ("a negative length", "HTTP/1.1 200 OK|Content-Length: -1", Plain, Transient, Transient),
    ("an empty length", "HTTP/1.1 200 OK|Content-Length:", Plain, Transient, Transient),
    ("chunks and their length", "HTTP/1.1 200 OK|Content-Length: {n}|Transfer-Encoding: chunked", Chunked, Good, Good),
    ("chunks and another length", "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Content-Length: 7", Chunked, Good, Good),
    ("identity as a transfer encoding", "HTTP/1.1 200 OK|Transfer-Encoding: identity|Content-Length: {n}", Plain, Good, Good),
    ("identity and no length", "HTTP/1.1 200 OK|Transfer-Encoding: identity", Plain, Good, Good),
    ("another transfer encoding", "HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked", Chunked, Transient, Transient),
    ("chunks of chunks", "HTTP/1.1 200 OK|Transfer-Encoding: chunked, chunked", Chunked, Transient, Transient),
    ("chunks with HTTP/1.0", "HTTP/1.0 200 OK|Transfer-Encoding: chunked", Chunked, Transient, Transient),
    ("a line end after the body", "HTTP/1.1 200 OK|Content-Length: {n}", WithLineEnd, Good, Good),
    ("half a body", "HTTP/1.1 200 OK|Content-Length: {n}", Half, Transient, Transient),
    ("half a chunk", "HTTP/1.1 200 OK|Transfer-Encoding: chunked", HalfChunked, Transient, Transient),
    // The status line.
    ("no reason", "HTTP/1.1 200|Content-Length: {n}", Plain, Good, Good),
    ("an empty reason", "HTTP/1.1 200 |Content-Length: {n}", Plain, Good, Good),
    ("another reason", "HTTP/1.1 200 Très bien|Content-Length: {n}", Plain, Good, Good),
    ("an empty line first", "|HTTP/1.1 200 OK|Content-Length: {n}", Plain, Good, Good),
    ("an interim response first", "HTTP/1.1 100 Continue||HTTP/1.1 200 OK|Content-Length: {n}", Plain, Good, Good),
    ("early hints first", "HTTP/1.1 103 Hints|Link: </x>||HTTP/1.1 200 OK|Content-Length: {n}", Plain, Good, Good),
    ("HTTP/2 in plain text", "HTTP/2 200|Content-Length: {n}", Plain, Transient, Transient),
    ("HTTP/0.9", "StorePath: x", Plain, Transient, Transient),
    ("another protocol", "SSH-2.0-x", Plain, Transient, Transient),
    ("a status of two digits", "HTTP/1.1 20 OK|Content-Length: {n}", Plain, Transient, Transient),
    ("an unknown status", "HTTP/1.1 299 Sure|Content-Length: {n}", Plain, Transient, Transient),
    // Header fields.
    ("small letters", "HTTP/1.1 200 OK|content-length: {n}", Plain, Good, Good),
    ("no blank after colons", "HTTP/1.1 200 OK|Content-Length:{n}", Plain, Good, Good),
    ("blanks before colons", "HTTP/1.1 200 OK|Content-Length : {n}|Server\t: x", Plain, Good, Good),
    ("bare line feeds", "HTTP/1.1 200 OK\nContent-Length: {n}\nServer: x\n\n", Plain, Good, Good),
    ("some bare line feeds", "HTTP/1.1 200 OK|Server: x\nContent-Length: {n}", Plain, Good, Good),
    ("300 fields", "HTTP/1.1 200 OK|{fields:300}Content-Length: {n}", Plain, Good, Good),
    ("600 fields", "HTTP/1.1 200 OK|{fields:600}Content-Length: {n}", Plain, Transient, Transient),
    ("a field of 40 KiB", "HTTP/1.1 200 OK|{field:40960}Content-Length: {n}", Plain, Good, Good),
    ("folded lines", "HTTP/1.1 200 OK|X-Long: a|  b|\tc|Content-Length: {n}", Plain, Good, Good),
    ("a folded length", "HTTP/1.1 200 OK|Content-Length:|  {n}", Plain, Good, Good),
    ("a line that is no field", "HTTP/1.1 200 OK|nothing|Content-Length: {n}", Plain, Good, Good),
    ("a name that is not allowed", "HTTP/1.1 200 OK|X Y(: z|Content-Length: {n}", Plain, Good, Good),
    ("a field without a name", "HTTP/1.1 200 OK|: z|Content-Length: {n}", Plain, Good, Good),
    ("letters beyond ASCII", "HTTP/1.1 200 OK|X-City: Zürich|Content-Length: {n}", Plain, Good, Good),
    ("an empty field", "HTTP/1.1 200 OK|X-Cache:|Content-Length: {n}", Plain, Good, Good),
    // Content encodings.
    ("gzip", "HTTP/1.1 200 OK|Content-Encoding: gzip|Content-Length: {n}", Gzip, Good, Good),
    ("x-gzip", "HTTP/1.1 200 OK|Content-Encoding: x-gzip|Content-Length: {n}", Gzip, Good, Good),
    ("deflate", "HTTP/1.1 200 OK|Content-Encoding: deflate|Content-Length: {n}", Zlib, Good, Good),
    ("zstd", "HTTP/1.1 200 OK|Content-Encoding: zstd|Connection: close", Zstd, Good, Good),
    ("br", "HTTP/1.1 200 OK|Content-Encoding: br|Content-Length: {n}", Brotli, Good, Good),
    ("gzip and what an object store adds", "HTTP/1.1 200 OK|Content-Encoding: gzip,aws-chunked|Content-Length: {n}", Gzip, Good, Good),
    ("identity as a content encoding", "HTTP/1.1 200 OK|Content-Encoding: identity|Content-Length: {n}", Plain, Good, Good),
    ("none as a content encoding", "HTTP/1.1 200 OK|Content-Encoding: none|Content-Length: {n}", Plain, Good, Good),
    ("an empty content encoding", "HTTP/1.1 200 OK|Content-Encoding:|Content-Length: {n}", Plain, Good, Good),
    ("an unknown content encoding", "HTTP/1.1 200 OK|Content-Encoding: utf-8|Content-Length: {n}", Plain, Good, Good),
    ("gzip that is not there", "HTTP/1.1 200 OK|Content-Encoding: gzip|Content-Length: {n}", Plain, Good, Good),
    // Other content.
    ("a page", "HTTP/1.1 200 OK|Content-Type: text/html|Content-Length: {n}", Text("<html>"), Transient, Other),
    ("JSON", "HTTP/1.1 200 OK|Content-Length: {n}", Text("{\"error\": 1}"), Transient, Other),
    ("a greeting", "HTTP/1.1 200 OK|Content-Length: {n}", Text("Welcome!"), Transient, Other),
    ("nothing", "HTTP/1.1 200 OK|Content-Length: {n}", Text(""), Transient, Other),
    // Other statuses.
    ("no content", "HTTP/1.1 204 Nothing|Server: x", Text(""), Transient, Transient),
    ("a range that was not requested", "HTTP/1.1 206 Part|Content-Range: bytes 0-6/7|Content-Length: {n}", Text("1234567"), Transient, Refused),
    ("not modified", "HTTP/1.1 304 Same|ETag: x", Text(""), Transient, Transient),
    ("not allowed", "HTTP/1.1 403 No|Content-Length: {n}", Text("<Error/>"), Transient, Transient),
    ("not there", "HTTP/1.1 404 No|Content-Length: {n}", Text("no"), Missing, Missing),
    ("gone", "HTTP/1.1 410 No|Content-Length: {n}", Text("no"), Missing, Missing),
    ("accepted", "HTTP/1.1 202 Soon|Content-Length: {n}", Text(""), Preparing, Transient),
    ("being prepared", "HTTP/1.1 404 Soon|X-Baking: 1|Content-Length: {n}", Text(""), Preparing, Missing),
    ("too many requests", "HTTP/1.1 429 Slow|Content-Length: {n}", Text(""), Transient, Transient),
    ("broken", "HTTP/1.1 500 Oh|Content-Length: {n}", Text(""), Transient, Transient),
    ("the login of a network", "HTTP/1.1 511 Log in|Content-Length: {n}", Text("<html>"), Transient, Transient),
    ("moved", "HTTP/1.1 302 Moved|Location: /moved{path}|Content-Length: {n}", Text(""), Good, Good),
    ("moved for ever", "HTTP/1.1 308 Moved|Location: ../moved{path}?x=y|Content-Length: {n}", Text(""), Good, Good),
    ("moved in circles", "HTTP/1.1 302 Moved|Location: {path}|Content-Length: {n}", Text(""), Transient, Transient),
    ("moved to another protocol", "HTTP/1.1 302 Moved|Location: ftp://h/x|Content-Length: {n}", Text(""), Transient, Transient),
    ("moved to nowhere", "HTTP/1.1 302 Moved|Content-Length: {n}", Text(""), Transient, Transient),
];

/// What is at `path`.
fn content(path: &str) -> Vec<u8> {
    match path.rsplit('/').next() {
        Some(name) if name.contains(".narinfo") => {
            let name = name.split('?').next().unwrap_or_default();
            narinfo_text(name).into_bytes()
        }
        _ => nar(),
    }
}

impl Sent {
    fn body(self, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let (first, second) = content.split_at(length / 2);
        let [size, rest] = [first, second].map(|part| format!("{:X}", part.len()));
        match self {
            Plain => content.to_vec(),
            Chunked => [
                format!("{length:x}\r\n").as_bytes(),
                content,
                b"\r\n0\r\n\r\n",
            ]
            .concat(),
            ChunkedWithExtras => [
                format!("{size};a=b\r\n").as_bytes(),
                first,
                format!("\r\n00{rest} ; c=\"d\"\r\n").as_bytes(),
                second,
                b"\r\n0\r\nX-Checksum: 1\r\n\r\n",
            ]
            .concat(),
            WithLineEnd => [content, b"\r\n"].concat(),
            Gzip => gzip(content),
            Zlib => zlib(content),
            Zstd => zstd(content),
            Brotli => brotli(content),
            Half => first.to_vec(),
            HalfChunked => [format!("{length:x}\r\n").as_bytes(), first].concat(),
            Text(text) => text.into(),
        }
    }

    /// The length that is announced.
    fn length(self, content: &[u8]) -> usize {
        match self {
            Half | WithLineEnd => content.len(),
            sent => sent.body(content).len(),
        }
    }
}

fn answer(head: &str, sent: Sent, path: &str) -> Vec<u8> {
    let content = content(path);
    let field = |name: &str, many: &dyn Fn(usize) -> String, head: String| match head
        .split_once(&format!("{{{name}:"))
    {
        None => head,
        Some((before, rest)) => {
            let (count, after) = rest.split_once('}').unwrap();
            format!("{before}{}{after}", many(count.parse().unwrap()))
        }
    };
    let head = head
        .replace('|', "\r\n")
        .replace("{n}", &sent.length(&content).to_string())
        .replace("{path}", path);
    let head = field("fields", &|count| "X-Field: 1\r\n".repeat(count), head);
    let head = field(
        "field",
        &|bytes| format!("X: {}\r\n", "x".repeat(bytes)),
        head,
    );
    let end = if head.ends_with("\n\n") {
        ""
    } else {
        "\r\n\r\n"
    };
    [head.as_bytes(), end.as_bytes(), &sent.body(&content)].concat()
}

/// A server with a habit. It keeps connections open where the end of the body is known.
fn serve((_, head, sent, ..): Habit) -> TestServer {
    TestServer::start(move |mut peer| {
        while let Some(path) = peer.request() {
            let is_usual = path == "/nix-cache-info" || path.starts_with("/moved");
            let reply = match is_usual {
                true if path == "/nix-cache-info" => correct(&path),
                true => answer("HTTP/1.1 200 OK|Content-Length: {n}", Plain, &path),
                false => answer(head, sent, &path),
            };
            peer.send(&reply);
            let has_end = head.contains("{n}") || head.contains("hunked");
            let is_closed = head.contains("Connection: close") || !has_end;
            if !is_usual && (is_closed || matches!(sent, Half | HalfChunked)) {
                return peer.close();
            }
        }
    })
}

fn seen(error: &HttpError) -> Seen {
    match error.class() {
        HttpErrorClass::Absent => Missing,
        HttpErrorClass::Transient => Transient,
        HttpErrorClass::Refused => Refused,
        HttpErrorClass::Local => panic!("{error:?}"),
    }
}

fn seen_by_lookup(server: &TestServer) -> Seen {
    let results = look_up(quick(), server.spec(), &items(3));
    let of_item = |n| match &results.answers[&item(n)] {
        Ok(NarInfoAnswer::Found { text, .. }) => {
            assert_eq!(text, &content(&format!("{}.narinfo", item(n))));
            Good
        }
        Ok(NarInfoAnswer::Missing { .. }) => Missing,
        Ok(NarInfoAnswer::Preparing { .. }) => Preparing,
        Err(error) => seen(error),
    };
    let all = [0, 1, 2].map(of_item);
    assert_eq!(all, [all[0]; 3]);
    all[0]
}

fn seen_by_download(server: &TestServer) -> Seen {
    let request = NarRequest {
        compression: Some(Compression::None),
        retry_policy: Some(RetryPolicy::once()),
        ..NarRequest::new(Url::parse(&format!("{}/nar/x", server.url())).unwrap())
    };
    let download = || {
        let mut body = Client::new(quick())?.nar(request)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next_chunk()? {
            bytes.extend_from_slice(&chunk);
        }
        Ok::<_, HttpError>(bytes)
    };
    match download() {
        Ok(bytes) if bytes == nar() => Good,
        Ok(_) => Other,
        Err(error) => seen(&error),
    }
}

#[test]
fn habits_of_servers() {
    let mut wrong = Vec::new();
    for habit in HABITS {
        let (name, .., lookup, nar) = habit;
        let found = (
            seen_by_lookup(&serve(habit)),
            seen_by_download(&serve(habit)),
        );
        if found != (lookup, nar) {
            wrong.push(format!("{name}: {found:?} instead of {:?}", (lookup, nar)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
