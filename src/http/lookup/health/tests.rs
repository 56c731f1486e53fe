//! Runs of connections that go wrong, and what is concluded from them.

use std::sync::Arc;

use super::*;

fn health() -> Health {
    Health::new(RetryPolicy::default(), PipeliningSupport::Untested, None)
}

fn report(end: End, answered: u32, unanswered: usize) -> Report {
    let was_pipelined = answered as usize + unanswered > 1;
    Report {
        end,
        answered,
        answered_ahead: answered.min(u32::try_from(unanswered).unwrap()),
        unanswered,
        was_pipelined,
        was_alone: false,
    }
}

fn end(health: &mut Health, report: &Report) -> Judgment {
    health.connection_ended(report, Protocol::Http1, 1.0)
}

const CLOSED: fn() -> End = || End::Closed { announced: false };
const ANNOUNCED: fn() -> End = || End::Closed { announced: true };
const STALLED: fn() -> End = || End::Failed(HttpErrorKind::Stalled(Duration::ZERO));

fn refused() -> HttpErrorKind {
    HttpErrorKind::Connect(Arc::new(std::io::Error::from(
        std::io::ErrorKind::ConnectionRefused,
    )))
}

#[test]
fn an_announced_limit_is_believed_at_once() {
    let mut health = health();
    let judgment = end(&mut health, &report(ANNOUNCED(), 1000, 500));
    assert_eq!(
        (judgment.course, judgment.asks_alone),
        (Course::GoOn, false)
    );
    assert_eq!(health.limit(), Some(1000));
    assert_eq!(
        health.take_lessons(),
        [ServerProperty::RequestsPerConnection(1000)]
    );
    end(&mut health, &report(ANNOUNCED(), 1000, 0));
    assert!(health.take_lessons().is_empty(), "it is no news");
}

#[test]
fn a_silent_limit_is_believed_the_second_time_in_a_row() {
    let mut health = health();
    for (answered, limit) in [(100, None), (90, None), (100, None), (100, Some(100))] {
        end(&mut health, &report(CLOSED(), answered, 500));
        assert_eq!(health.limit(), limit);
    }
    assert!(
        !health.outlives_limit(),
        "the next connection will be closed as well"
    );
    end(&mut health, &report(CLOSED(), 100, 0));
    assert_eq!(health.limit(), Some(100), "an idle end says nothing");
}

#[test]
fn a_remembered_limit_may_be_wrong() {
    let mut health = Health::new(RetryPolicy::default(), PipeliningSupport::Works, Some(10));
    assert_eq!(health.limit(), Some(10));
    assert!(health.outlives_limit());
    assert_eq!(health.limit(), None);
    assert_eq!(
        Health::new(RetryPolicy::default(), PipeliningSupport::Works, Some(0)).limit(),
        None
    );
}

#[test]
fn asking_ahead_is_given_up_after_two_proofs_in_a_row() {
    let mut health = health();
    for proofs in 1..=2 {
        assert!(end(&mut health, &report(CLOSED(), 0, 10)).asks_alone);
        assert!(health.asks_ahead());
        health.answered_alone();
        health.answered();
        assert_eq!(health.asks_ahead(), proofs < 2);
    }
    assert_eq!(
        health.take_lessons(),
        [ServerProperty::Pipelining(PipeliningSupport::Broken)]
    );
}

#[test]
fn a_good_connection_between_two_bad_ones_is_an_acquittal() {
    let mut health = health();
    for _ in 0..5 {
        end(&mut health, &report(CLOSED(), 0, 10));
        health.answered_alone();
        end(&mut health, &report(CLOSED(), 50, 10));
    }
    assert!(health.asks_ahead());
}

#[test]
fn failing_alone_acquits_asking_ahead() {
    let mut health = health();
    for _ in 0..2 {
        end(&mut health, &report(End::OutOfStep, 20, 10));
        health.lied_alone();
        health.answered_alone();
    }
    for _ in 0..2 {
        end(&mut health, &report(CLOSED(), 0, 10));
        end(
            &mut health,
            &Report {
                was_alone: true,
                ..report(CLOSED(), 0, 10)
            },
        );
        health.answered_alone();
    }
    assert!(health.asks_ahead());
}

#[test]
fn silence_when_asked_ahead_is_proof_enough_unless_it_worked_before() {
    for (known, asks_ahead) in [
        (PipeliningSupport::Untested, false),
        (PipeliningSupport::Works, true),
    ] {
        let mut health = Health::new(RetryPolicy::default(), known, None);
        assert!(end(&mut health, &report(STALLED(), 1, 10)).asks_alone);
        health.answered_alone();
        assert_eq!(health.asks_ahead(), asks_ahead);
    }
}

#[test]
fn a_single_request_proves_nothing_about_asking_ahead() {
    let mut health = health();
    assert!(!end(&mut health, &report(CLOSED(), 0, 1)).asks_alone);
}

#[test]
fn unanswered_connections_in_a_row_end_it() {
    let mut health = health();
    for _ in 0..3 {
        let judgment = end(&mut health, &report(CLOSED(), 0, 10));
        assert!(matches!(judgment.course, Course::Wait(_)));
    }
    assert_eq!(
        end(&mut health, &report(CLOSED(), 0, 10)).course,
        Course::GiveUp
    );
}

#[test]
fn a_server_that_answered_before_gets_one_more_chance_than_a_question() {
    let mut health = health();
    health.answered();
    for _ in 0..4 {
        assert_ne!(
            end(&mut health, &report(CLOSED(), 0, 10)).course,
            Course::GiveUp
        );
    }
    assert_eq!(
        end(&mut health, &report(CLOSED(), 0, 10)).course,
        Course::GiveUp
    );
}

#[test]
fn silence_ends_it_sooner() {
    assert_eq!(
        end(&mut health(), &report(STALLED(), 0, 10)).course,
        Course::GiveUp
    );
    let mut health = health();
    assert_eq!(
        end(&mut health, &report(STALLED(), 5, 10)).course,
        Course::GoOn
    );
    assert_ne!(
        end(&mut health, &report(STALLED(), 0, 10)).course,
        Course::GiveUp
    );
    assert_eq!(
        end(&mut health, &report(STALLED(), 0, 10)).course,
        Course::GiveUp
    );
}

#[test]
fn idle_ends_are_no_failures() {
    let mut health = health();
    for _ in 0..10 {
        assert_eq!(
            end(&mut health, &report(CLOSED(), 0, 0)).course,
            Course::GoOn
        );
        assert_eq!(
            end(&mut health, &report(End::Done, 5, 0)).course,
            Course::GoOn
        );
    }
}

#[test]
fn connections_that_cannot_be_made() {
    let timeout = HttpErrorKind::ConnectTimeout(Duration::ZERO);
    assert_eq!(health().not_connected(&timeout, 1.0), Course::GiveUp);
    let mut fresh = health();
    assert!(matches!(
        fresh.not_connected(&refused(), 1.0),
        Course::Wait(_)
    ));
    assert_eq!(fresh.not_connected(&refused(), 1.0), Course::GiveUp);
    let mut known = health();
    known.answered();
    let courses: Vec<_> = (0..4).map(|_| known.not_connected(&timeout, 1.0)).collect();
    assert_eq!(
        courses
            .iter()
            .filter(|course| **course == Course::GiveUp)
            .count(),
        1
    );
    assert_eq!(courses[3], Course::GiveUp);
}

#[test]
fn http2_is_given_up_after_two_failures() {
    let mut health = health();
    for is_offered in [true, false] {
        let failed = Report {
            was_pipelined: false,
            ..report(CLOSED(), 0, 10)
        };
        health.connection_ended(&failed, Protocol::Http2, 1.0);
        assert_eq!(health.offers_http2(), is_offered);
    }
}

#[test]
fn trouble_is_the_servers_when_it_says_so_or_says_it_often() {
    let mut health = health();
    assert!(health.is_overloaded(503));
    assert!(!health.is_overloaded(500));
    let all_the_same = (0..TROUBLES_MAX).map(|_| health.is_overloaded(500)).last();
    assert_eq!(all_the_same, Some(true));
    health.answered();
    assert!(!health.is_overloaded(500));
}

#[test]
fn overload_is_waited_out_a_few_times() {
    let mut health = health();
    let busy = HttpErrorKind::Status {
        status: 503,
        retry_after: None,
    };
    let courses: Vec<_> = (0..4).map(|_| health.overloaded(&busy, 1.0)).collect();
    assert!(
        courses[..3]
            .iter()
            .all(|course| matches!(course, Course::Wait(_)))
    );
    assert_eq!(courses[3], Course::GiveUp);
}
