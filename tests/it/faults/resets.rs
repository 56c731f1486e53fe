//! Nars whose length nothing tells, from a server that resets the connection where they end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::{assert_complete, only};
use crate::support::{files_below, item};

/// A server of `directory`, which cuts the first `cuts` nars; its address, and how many nars were requested.
fn start(directory: PathBuf, cuts: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let nars = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&nars);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (directory, nars) = (directory.clone(), Arc::clone(&counter));
            // A client that goes away is no failure of the server's.
            std::thread::spawn(move || drop(serve(stream.unwrap(), &directory, cuts, &nars)));
        }
    });
    (url, nars)
}

fn serve(
    mut stream: TcpStream,
    directory: &Path,
    cuts: usize,
    nars: &AtomicUsize,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap().trim_start_matches('/');
        let body = std::fs::read(directory.join(path)).unwrap();
        if !path.starts_with("nar/") {
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            )?;
            stream.write_all(&body)?;
            continue;
        }

        let end = match nars.fetch_add(1, Ordering::Relaxed) < cuts {
            true => body.len() / 2,
            false => body.len(),
        };
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        stream.write_all(&body[..end])?;
        set_socket_linger(&stream, Some(Duration::ZERO))?;
        return Ok(());
    }
}

#[test]
fn the_hash_tells_whether_a_nar_without_a_length_is_complete() {
    for cuts in [0, 2] {
        let (sandbox, fixture) = only("zstd");
        for narinfo in files_below(&fixture.dir, ".narinfo") {
            let text = std::fs::read_to_string(&narinfo).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with("FileSize"));
            let text: String = lines.map(|line| format!("{line}\n")).collect();
            std::fs::write(narinfo, text).unwrap();
        }
        let (url, nars) = start(fixture.dir.clone(), cuts);
        sandbox
            .subst(&url, &["fetch", "--retry-time", "1m", &item("sample")])
            .exits(0);
        assert_complete(&sandbox);
        assert_eq!(nars.load(Ordering::Relaxed), 7 + cuts);
    }
}
