//! Buckets of object stores: whose URLs the helper signs requests for.

use std::process::Command;

use super::Helper;
use crate::support::bucket::{self, BUCKET, BucketRules, KEY_ID, SECRET_KEY};
use crate::support::{Kind, Sandbox, item};

/// The helper with access keys in its environment.
fn helper(sandbox: &Sandbox, urls: &str, options: &str) -> Helper {
    let script = format!(
        "export AWS_ACCESS_KEY_ID='{KEY_ID}' AWS_SECRET_ACCESS_KEY='{SECRET_KEY}'; \
         exec 4>&1 1>&2; exec \"$0\" substitute \"$@\""
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_subst"), "--query"]);
    Helper::start_by(command, sandbox, urls, options)
}

#[test]
fn keys_are_used_for_buckets_of_the_administrator_alone() {
    let server = bucket::start(&Kind::Guix.directory(), BucketRules::default());
    let url = format!("s3://{BUCKET}?endpoint={}", server.url());
    let by_client = format!("untrusted-substitute-urls={url}\n");
    let table = format!("[[server]]\nurl = \"{url}\"\n");
    for (options, config, is_found) in [
        ("", "", true),
        (by_client.as_str(), "", false),
        (&by_client, &table, true),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write_safely("config.toml", config);
        let mut helper = helper(&sandbox, &url, options);
        let found = helper.have(&[&item("tools")]);
        helper.end();
        assert_eq!(!found.is_empty(), is_found, "{options} {config}");
    }
    let requests = server.requests();
    let is_signed = |name| requests.iter().any(|it| it.field(name).is_some());
    assert!(is_signed("authorization"));
}
