//! Locks that another process holds: a fetch reports what it waits for, and an interrupt ends it.

use std::fs::File;

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use super::only;
use crate::support::{Kind, item, wait_until};

#[test]
fn a_fetch_reports_that_the_database_is_locked_and_can_be_interrupted() {
    let (sandbox, fixture) = only("zstd");
    let url = fixture.url();
    sandbox.subst(&url, &["fetch", &item("notes")]).exits(0);
    let database = sandbox.root().join("var/guix/db/db.sqlite");
    let other = Connection::open(&database).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let messages = sandbox.path("messages");
    let mut command = sandbox.command(Kind::Guix, &url, &["fetch", &item("sample")]);
    command.stderr(File::create(&messages).unwrap());
    let mut running = command.spawn().unwrap();
    let holder = format!("waiting for process {}", std::process::id());
    let is_reported = || {
        std::fs::read_to_string(&messages)
            .unwrap()
            .contains(&holder)
    };
    assert!(wait_until(is_reported), "{:?}", std::fs::read(&messages));

    let pid = Pid::from_child(&running);
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(130));

    other.execute_batch("ROLLBACK").unwrap();
    sandbox.subst(&url, &["fetch", &item("sample")]).exits(0);
    super::assert_complete(&sandbox);
}
