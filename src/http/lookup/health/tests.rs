//! Sequences of connections that fail, and what follows from them.

use std::sync::Arc;

use super::*;

fn health() -> ConnectionHealth {
    let mut health =
        ConnectionHealth::new(RetryPolicy::default(), PipeliningSupport::Untested, None);
    health.note_genuine();
    health
}

fn report(end: ConnectionEnd, answered: u32, unanswered: usize) -> ConnectionReport {
    let was_pipelined = answered as usize + unanswered > 1;
    ConnectionReport {
        end,
        answered,
        answered_pipelined: answered.min(u32::try_from(unanswered).unwrap()),
        unanswered,
        was_pipelined,
        was_unpipelined: false,
    }
}

fn report_end(health: &mut ConnectionHealth, report: &ConnectionReport) -> EndConsequence {
    health.connection_ended(report, Protocol::Http1, 1.0)
}

const CLOSED: fn() -> ConnectionEnd = || ConnectionEnd::Closed { announced: false };
const ANNOUNCED: fn() -> ConnectionEnd = || ConnectionEnd::Closed { announced: true };
const STALLED: fn() -> ConnectionEnd =
    || ConnectionEnd::Failed(HttpErrorKind::Stalled(Duration::ZERO));

fn refused() -> HttpErrorKind {
    HttpErrorKind::Connect(Arc::new(std::io::Error::from(
        std::io::ErrorKind::ConnectionRefused,
    )))
}

#[test]
fn an_announced_limit_applies_at_once() {
    let mut health = health();
    let consequence = report_end(&mut health, &report(ANNOUNCED(), 1000, 500));
    assert_eq!(
        (consequence.action, consequence.retry_unpipelined),
        (HealthAction::Continue, false)
    );
    assert_eq!(health.request_limit(), Some(1000));
    assert_eq!(
        health.take_new_properties(),
        [ServerProperty::RequestsPerConnection(1000)]
    );
    report_end(&mut health, &report(ANNOUNCED(), 1000, 0));
    assert!(
        health.take_new_properties().is_empty(),
        "it is already known"
    );
}

#[test]
fn http2_is_given_up_where_connections_end_early() {
    let lost = || ConnectionEnd::Failed(HttpErrorKind::Closed);
    let stalled = STALLED;
    for (ends, limit) in [
        (vec![(ANNOUNCED(), 1, 99)], Some(1)),
        (vec![(CLOSED(), 10, 90)], Some(10)),
        (vec![(lost(), 20, 80)], None),
        (vec![(lost(), 20, 80), (lost(), 20, 80)], Some(20)),
        (
            vec![(lost(), 20, 80), (CLOSED(), 90, 10), (lost(), 20, 80)],
            None,
        ),
        (vec![(stalled(), 20, 80), (stalled(), 20, 80)], None),
        (vec![(CLOSED(), 1000, 100), (CLOSED(), 1000, 100)], None),
    ] {
        let mut health = health();
        for (end, answered, unanswered) in ends {
            let report = report(end, answered, unanswered);
            health.connection_ended(&report, Protocol::Http2, 1.0);
        }
        assert_eq!(health.request_limit(), limit);
        assert_eq!(health.offers_http2(), limit.is_none());
    }

    // A connection over HTTP/1.1 that stays open refutes it.
    let mut health = health();
    let report = report(ANNOUNCED(), 1, 99);
    health.connection_ended(&report, Protocol::Http2, 1.0);
    assert!(health.take_refuted_limit());
    assert!(health.offers_http2());
}

#[test]
fn an_unannounced_limit_applies_the_second_time_in_a_row() {
    let mut health = health();
    for (answered, limit) in [(100, None), (90, None), (100, None), (100, Some(100))] {
        report_end(&mut health, &report(CLOSED(), answered, 500));
        assert_eq!(health.request_limit(), limit);
    }
    assert!(
        !health.take_refuted_limit(),
        "the next connection will be closed as well"
    );
    report_end(&mut health, &report(CLOSED(), 100, 0));
    assert_eq!(
        health.request_limit(),
        Some(100),
        "closing an idle connection says nothing"
    );
}

#[test]
fn a_known_limit_may_be_wrong() {
    let mut health =
        ConnectionHealth::new(RetryPolicy::default(), PipeliningSupport::Works, Some(10));
    assert_eq!(health.request_limit(), Some(10));
    assert!(health.take_refuted_limit());
    assert_eq!(health.request_limit(), None);
    assert_eq!(
        ConnectionHealth::new(RetryPolicy::default(), PipeliningSupport::Works, Some(0))
            .request_limit(),
        None
    );
}

#[test]
fn pipelining_is_turned_off_after_two_failures_in_a_row() {
    let mut health = health();
    for proofs in 1..=2 {
        assert!(report_end(&mut health, &report(CLOSED(), 0, 10)).retry_unpipelined);
        assert!(health.may_pipeline());
        health.answered_unpipelined();
        health.answered();
        assert_eq!(health.may_pipeline(), proofs < 2);
    }
    assert_eq!(
        health.take_new_properties(),
        [ServerProperty::Pipelining(PipeliningSupport::Broken)]
    );
}

#[test]
fn a_good_connection_between_two_bad_ones_keeps_pipelining() {
    let mut health = health();
    for _ in 0..5 {
        report_end(&mut health, &report(CLOSED(), 0, 10));
        health.answered_unpipelined();
        report_end(&mut health, &report(CLOSED(), 50, 10));
    }
    assert!(health.may_pipeline());
}

#[test]
fn failing_unpipelined_keeps_pipelining() {
    let mut health = health();
    for _ in 0..2 {
        report_end(&mut health, &report(ConnectionEnd::Mismatched, 20, 10));
        health.mismatched_unpipelined();
        health.answered_unpipelined();
    }
    for _ in 0..2 {
        report_end(&mut health, &report(CLOSED(), 0, 10));
        report_end(
            &mut health,
            &ConnectionReport {
                was_unpipelined: true,
                ..report(CLOSED(), 0, 10)
            },
        );
        health.answered_unpipelined();
    }
    assert!(health.may_pipeline());
}

#[test]
fn one_pipelined_stall_turns_pipelining_off_unless_it_worked_before() {
    for (known, may_pipeline) in [
        (PipeliningSupport::Untested, false),
        (PipeliningSupport::Works, true),
    ] {
        let mut health = ConnectionHealth::new(RetryPolicy::default(), known, None);
        assert!(report_end(&mut health, &report(STALLED(), 1, 10)).retry_unpipelined);
        health.answered_unpipelined();
        assert_eq!(health.may_pipeline(), may_pipeline);
    }
}

#[test]
fn a_single_request_proves_nothing_about_pipelining() {
    let mut health = health();
    assert!(!report_end(&mut health, &report(CLOSED(), 0, 1)).retry_unpipelined);
}

#[test]
fn a_server_is_given_up_after_unanswered_connections_in_a_row() {
    let mut health = health();
    for _ in 0..3 {
        let consequence = report_end(&mut health, &report(CLOSED(), 0, 10));
        assert!(matches!(consequence.action, HealthAction::Pause(_)));
    }
    assert_eq!(
        report_end(&mut health, &report(CLOSED(), 0, 10)).action,
        HealthAction::GiveUp
    );
}

#[test]
fn a_server_that_answered_before_gets_one_more_attempt_than_a_request() {
    let mut health = health();
    health.answered();
    for _ in 0..4 {
        assert_ne!(
            report_end(&mut health, &report(CLOSED(), 0, 10)).action,
            HealthAction::GiveUp
        );
    }
    assert_eq!(
        report_end(&mut health, &report(CLOSED(), 0, 10)).action,
        HealthAction::GiveUp
    );
}

#[test]
fn a_server_that_stalls_is_given_up_sooner() {
    assert_eq!(
        report_end(&mut health(), &report(STALLED(), 0, 10)).action,
        HealthAction::GiveUp
    );
    let mut health = health();
    assert_eq!(
        report_end(&mut health, &report(STALLED(), 5, 10)).action,
        HealthAction::Continue
    );
    assert_ne!(
        report_end(&mut health, &report(STALLED(), 0, 10)).action,
        HealthAction::GiveUp
    );
    assert_eq!(
        report_end(&mut health, &report(STALLED(), 0, 10)).action,
        HealthAction::GiveUp
    );
}

#[test]
fn closed_idle_connections_are_not_failures() {
    let mut health = health();
    for _ in 0..10 {
        assert_eq!(
            report_end(&mut health, &report(CLOSED(), 0, 0)).action,
            HealthAction::Continue
        );
        assert_eq!(
            report_end(&mut health, &report(ConnectionEnd::Unneeded, 5, 0)).action,
            HealthAction::Continue
        );
    }
}

#[test]
fn a_new_server_gets_fewer_attempts_to_connect_than_a_known_one() {
    let timeout = HttpErrorKind::ConnectTimeout(Duration::ZERO);
    assert_eq!(
        health().connecting_failed(&timeout, 1.0),
        HealthAction::GiveUp
    );
    let mut fresh = health();
    assert!(matches!(
        fresh.connecting_failed(&refused(), 1.0),
        HealthAction::Pause(_)
    ));
    assert_eq!(
        fresh.connecting_failed(&refused(), 1.0),
        HealthAction::GiveUp
    );
    let mut known = health();
    known.answered();
    let actions: Vec<_> = (0..4)
        .map(|_| known.connecting_failed(&timeout, 1.0))
        .collect();
    assert_eq!(
        actions
            .iter()
            .filter(|action| **action == HealthAction::GiveUp)
            .count(),
        1
    );
    assert_eq!(actions[3], HealthAction::GiveUp);
}

#[test]
fn http2_is_turned_off_after_two_failures() {
    let mut health = health();
    for is_offered in [true, false] {
        let failed = ConnectionReport {
            was_pipelined: false,
            ..report(CLOSED(), 0, 10)
        };
        health.connection_ended(&failed, Protocol::Http2, 1.0);
        assert_eq!(health.offers_http2(), is_offered);
    }
}

#[test]
fn error_statuses_429_503_and_many_in_a_row_are_the_whole_servers() {
    let mut health = health();
    assert!(health.note_error_status(503));
    assert!(!health.note_error_status(500));
    let all_the_same = (0..ERROR_STATUSES_MAX)
        .map(|_| health.note_error_status(500))
        .last();
    assert_eq!(all_the_same, Some(true));
    health.answered();
    assert!(!health.note_error_status(500));
}

#[test]
fn an_overloaded_server_is_paused_for_a_limited_time() {
    let mut health = health();
    health.answered();
    let busy = HttpErrorKind::Status {
        status: 503,
        retry_after: Some(Duration::from_secs(30)),
    };
    let pause = HealthAction::Pause(Duration::from_secs(30));
    let actions = [(); 3].map(|()| health.overloaded(&busy, 1.0));
    assert_eq!(
        actions,
        [pause.clone(), pause.clone(), HealthAction::GiveUp]
    );
    health.answered();
    assert_eq!(health.overloaded(&busy, 1.0), pause);
}

#[test]
fn an_overloaded_server_is_paused_a_few_times() {
    let mut health = health();
    let busy = HttpErrorKind::Status {
        status: 503,
        retry_after: None,
    };
    let actions: Vec<_> = (0..4).map(|_| health.overloaded(&busy, 1.0)).collect();
    assert!(
        actions[..3]
            .iter()
            .all(|action| matches!(action, HealthAction::Pause(_)))
    );
    assert_eq!(actions[3], HealthAction::GiveUp);
}
