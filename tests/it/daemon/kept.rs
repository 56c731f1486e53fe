//! Downloads that a killed helper has begun are continued by the next one.

use std::time::Duration;

use crate::support::publisher::{Publisher, file_nar};
use crate::support::{Reply, Sandbox, Server, wait_until};

use super::{Helper, log};

#[test]
fn the_next_helper_downloads_only_the_rest() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "server", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let mut rng = fastrand::Rng::with_seed(0);
    let contents: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
        .take(3 << 20)
        .collect();
    let nar = file_nar(&contents);
    let item = publisher.publish('1', &nar, nar.len() as u64, "");
    let dir = publisher.dir;
    let server = Server::start(move |request| {
        let mut reply = Reply::file_or_range(&dir, request);
        if request.path.ends_with(".nar") {
            reply.drip = Some((32 << 10, Duration::from_millis(60)));
        }
        reply
    });

    let partial = sandbox.path("state/subst/partial");
    let kept_bytes = || -> u64 {
        let entries = std::fs::read_dir(&partial).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.metadata().map_or(0, |it| it.len()))
            .sum()
    };
    let start = || {
        let arguments = ["--substitute", "--connections", "1"];
        Helper::start_with(&sandbox, &server.url(), &arguments, "")
    };
    let mut killed = start();
    killed.send(&format!(
        "substitute {item} {}",
        sandbox.path("tree").display()
    ));
    assert!(wait_until(|| kept_bytes() > 1 << 20), "{}", log(&sandbox));
    drop(killed);

    let mut helper = start();
    let answer = helper.substitute(&item, &sandbox.path("tree"));
    assert!(
        answer.starts_with("success "),
        "{answer}: {}",
        log(&sandbox)
    );
    helper.end();
    assert_eq!(std::fs::read(sandbox.path("tree")).unwrap(), contents);
    assert_eq!(kept_bytes(), 0);
    let ranges = server.ranges_of("/1.nar");
    assert_eq!(
        ranges.iter().filter(|from| from.is_none()).count(),
        1,
        "{ranges:?}"
    );
}
