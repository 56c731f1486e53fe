//! The helper lists and substitutes only what the policy accepts.

use super::{Helper, log};
use crate::support::publisher::Publisher;
use crate::support::{Sandbox, Server};

#[test]
fn the_helper_offers_only_what_enough_principals_agree_about() {
    let sandbox = Sandbox::new();
    let publishers =
        [("a", 1), ("b", 2), ("c", 3)].map(|(name, seed)| Publisher::new(&sandbox, name, seed));
    let [a, b, c] = &publishers;
    Publisher::trust(&sandbox, &[a, b, c]);
    let agreed = [a, b].map(|it| it.publish_file('1', "same", ""))[0].clone();
    let disputed = [(a, "x"), (b, "y")].map(|(it, text)| it.publish_file('2', text, ""));
    let (disputed, alone) = (disputed[0].clone(), c.publish_file('3', "alone", ""));
    let servers = publishers.each_ref().map(|it| Server::of(it.dir.clone()));
    let urls = servers.each_ref().map(Server::url).join(" ");

    sandbox.write_safely("config.toml", "[trust]\nneed = 2\n");
    let mut helper = Helper::start(&sandbox, &urls, "--query", "");
    assert_eq!(helper.have(&[&agreed, &disputed, &alone]), [&*agreed]);
    assert_eq!(helper.info(&disputed), None);
    assert_eq!(helper.info(&alone), None);
    assert!(helper.info(&agreed).is_some());
    helper.end();
    let said = log(&sandbox);
    assert!(said.contains("is not substituted"), "{said}");
    assert!(said.contains("its signers disagree: "), "{said}");

    let mut helper = Helper::start(&sandbox, &urls, "--substitute", "");
    for refused in [&disputed, &alone] {
        assert_eq!(
            helper.substitute(refused, &sandbox.path("refused")),
            "not-found"
        );
    }
    let reply = helper.substitute(&agreed, &sandbox.path("agreed"));
    assert!(reply.starts_with("success sha256:"), "{reply}");
    helper.end();
    assert!(!sandbox.path("refused").exists());

    sandbox.write_safely("config.toml", "");
    let mut helper = Helper::start(&sandbox, &urls, "--query", "");
    assert_eq!(helper.have(&[&agreed, &disputed, &alone]).len(), 3);
    helper.end();
}

#[test]
fn a_helper_with_a_wrong_policy_offers_nothing() {
    let sandbox = Sandbox::new();
    let publisher = Publisher::new(&sandbox, "a", 1);
    Publisher::trust(&sandbox, &[&publisher]);
    let item = publisher.publish_file('1', "x", "");
    sandbox.write_safely("config.toml", "[trust]\nneed = \"two\"\n");
    let mut command = sandbox.bare(&["substitute", "--query"]);
    command.env(
        "_NIX_OPTIONS",
        format!("substitute-urls={}", publisher.url()),
    );
    let ended = crate::support::sandbox::run_with_input(command, &format!("have {item}\n"));
    assert!(!ended.stdout.contains(&item), "{ended:?}");
    assert_eq!(ended.code, Some(2));
    ended.says("need");
}
