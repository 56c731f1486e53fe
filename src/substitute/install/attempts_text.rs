//! Failed downloads as text: one line for each server and kind of failure, however many items and
//! URLs it concerns.

use std::collections::BTreeSet;

use crate::format::server_list::ServerIndex;
use crate::http::Outage;
use crate::substitute::install::attempt_errors::{Attempt, FailureKind};

/// The failures of one kind at one server.
struct FailureLine<'a> {
    server: ServerIndex,
    /// `None`: the server was down, which explains all its failures.
    kind: Option<FailureKind>,
    attempts: Vec<&'a Attempt>,
}

/// All failures, those of a server together.
pub(super) fn attempts_text(attempts: &[Attempt]) -> String {
    let mut text = "every download failed".to_owned();
    for line in lines(attempts) {
        text.push_str(&format!("\n    {}", line.text()));
    }
    text
}

/// What all failures of the same servers in the same ways have in common.
pub(super) fn common_cause(attempts: &[Attempt]) -> String {
    let lines = lines(attempts);
    let causes: BTreeSet<String> = lines
        .iter()
        .map(|line| format!("{:?} {:?}", line.server, line.kind))
        .collect();
    causes.into_iter().collect::<Vec<_>>().join(", ")
}

fn lines(attempts: &[Attempt]) -> Vec<FailureLine<'_>> {
    let down: Vec<ServerIndex> = attempts
        .iter()
        .filter(|attempt| is_down(attempt))
        .map(|attempt| attempt.candidate.server)
        .collect();

    let mut lines: Vec<FailureLine> = Vec::new();
    for attempt in attempts {
        let server = attempt.candidate.server;
        let kind = (!down.contains(&server)).then(|| attempt.error.kind());
        let known = lines
            .iter_mut()
            .find(|line| line.server == server && line.kind == kind);
        match known {
            Some(line) => line.attempts.push(attempt),
            None => lines.push(FailureLine {
                server,
                kind,
                attempts: vec![attempt],
            }),
        }
    }

    let first_of = |server| {
        attempts
            .iter()
            .position(|attempt| attempt.candidate.server == server)
    };
    lines.sort_by_key(|line| first_of(line.server));
    lines
}

/// Whether the server was unreachable or silent.
fn is_down(attempt: &Attempt) -> bool {
    matches!(
        attempt.error.outage(),
        Some(Outage::Unreachable | Outage::Silent(_))
    )
}

impl FailureLine<'_> {
    fn text(&self) -> String {
        if self.kind.is_none() {
            return self.down_text();
        }

        let first = self.attempts[0];
        let mut urls: Vec<&str> = Vec::new();
        for attempt in &self.attempts {
            if !urls.contains(&attempt.url.as_str()) {
                urls.push(&attempt.url);
            }
        }
        let others = match urls.len() - 1 {
            0 => String::new(),
            1 => " and 1 other".to_owned(),
            count => format!(" and {count} others"),
        };
        format!("{}{others}: {}", first.url, first.error.reason())
    }

    /// The server, and how it was found to be down.
    fn down_text(&self) -> String {
        let mut attempts = self.attempts.iter().rev();
        let last = attempts.find(|attempt| is_down(attempt));
        let last = last.unwrap_or(&self.attempts[0]);
        let origin = last.candidate.url.origin().ascii_serialization();
        format!("{origin}: {}", last.error.reason())
    }
}
