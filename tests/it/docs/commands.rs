//! Runs the `console` blocks of the documents: all blocks of a page in one shell, in their order.
//! A command must succeed, unless the next one is `echo $?`; where output is shown, it must be the
//! same. In it, `...` stands for any text, a line of only `...` for any lines; blanks and measured
//! times are not compared.
//!
//! The shell is in `~/subst`, a directory with the fixtures. The official servers are not reached:
//! in their place, and in that of the example servers, is a server of the fixtures on loopback.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use super::blocks::{CodeBlock, ShownCommand, all_blocks};
use crate::support::sandbox::run;
use crate::support::{Kind, Sandbox, Server, item, repository};

/// The official server of the documents, which is used unless a command names others.
const OFFICIAL_SERVER: &str = "https://bordeaux.guix.gnu.org";

/// Other servers of the documents. A page names one of them at most.
const OTHER_SERVERS: [&str; 2] = ["https://substitutes.example.org", "http://cache.lan:8080"];

/// Between a command's output and the next one's.
const SEPARATOR: &str = "--- end of the output, with status ";

/// A page's shell and its directories.
struct Page {
    sandbox: Sandbox,
    /// Whether the fixtures' key is one of the keys that come with a new store, as those of the
    /// official servers are. Otherwise the page authorizes it.
    is_key_official: bool,
    official: Server,
    other: Server,
    other_name: &'static str,
}

impl Page {
    fn new(blocks: &[&CodeBlock]) -> Self {
        let text: String = blocks.iter().map(|block| block.text.as_str()).collect();
        let other_name = OTHER_SERVERS.iter().find(|name| text.contains(*name));
        let sandbox = Sandbox::new();
        let clone = sandbox.path("home/subst");
        for directory in ["bin", "home/subst"] {
            std::fs::create_dir_all(sandbox.path(directory)).unwrap();
        }
        symlink(repository().join("fixtures"), clone.join("fixtures")).unwrap();
        symlink(env!("CARGO_BIN_EXE_subst"), sandbox.path("bin/subst")).unwrap();
        for directory in ["home", "home/subst"] {
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(sandbox.path(directory), mode).unwrap();
        }
        sandbox.write_config("home/.config/subst/config.toml", "");
        Self {
            sandbox,
            is_key_official: !text.contains("$ subst authorize"),
            official: Server::of(Kind::Guix.directory()),
            other: Server::of(Kind::Guix.directory()),
            other_name: other_name.unwrap_or(&OTHER_SERVERS[0]),
        }
    }

    /// A script that runs `commands`; their output is on standard output.
    fn script(&self, commands: &[ShownCommand]) -> String {
        let mut script = "exec 2>&1 < /dev/null\numask 022\n".to_owned();
        for command in commands {
            let text = command
                .text
                .replace(OFFICIAL_SERVER, &self.official.url())
                .replace(self.other_name, &self.other.url());
            script.push_str(&format!(
                "{text}\nstatus=$?; echo; echo \"{SEPARATOR}$status\"; (exit $status)\n"
            ));
        }
        script
    }

    fn run(&self, commands: &[ShownCommand]) -> String {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", &self.script(commands)])
            .current_dir(self.sandbox.path("home/subst"))
            .env_clear()
            .env("HOME", self.sandbox.path("home"))
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.sandbox.path("bin").display()),
            )
            .env("item", item("sample"))
            .env(
                "SUBST_CONFIG",
                self.sandbox.path("home/.config/subst/config.toml"),
            )
            .env("SUBST_SUBSTITUTE_URLS", self.official.url())
            .env("SUBST_RETRY_TIME", "2s")
            .env("SUBST_SYNC", "none")
            // A slow machine reports progress that no document shows.
            .env("SUBST_PROGRESS", "none");
        if self.is_key_official {
            shell.env("SUBST_ACL", self.sandbox.path("acl"));
        }
        let output = run(shell).stdout;
        self.as_documented(&output)
    }

    /// `output` with the directories and the servers of the documents.
    fn as_documented(&self, output: &str) -> String {
        let fixtures = repository().join("fixtures");
        let home = self.sandbox.path("home");
        let mut text = output
            .replace(fixtures.to_str().unwrap(), "/home/me/subst/fixtures")
            .replace(home.to_str().unwrap(), "/home/me");
        for (server, name) in [
            (&self.official, OFFICIAL_SERVER),
            (&self.other, self.other_name),
        ] {
            let (_, host) = name.split_once("://").unwrap();
            text = text.replace(&server.url(), name);
            text = text.replace(&server.address().to_string(), host);
        }
        text
    }
}

/// A line for a comparison: one blank between words, and no measured times.
fn comparable(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    for at in 1..words.len() {
        let is_unit = ["s", "ms"].contains(&words[at].trim_end_matches(['.', ',', ')']));
        let number = words[at - 1].trim_start_matches('(');
        if is_unit && number.parse::<f64>().is_ok() && number.contains('.') {
            words[at - 1] = "N";
        }
    }
    words.join(" ")
}

/// Whether `line` is what a document shows as `shown`.
fn line_matches(shown: &str, line: &str) -> bool {
    let mut parts = shown.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    for (number, part) in parts.iter().enumerate() {
        let at = if number + 1 == parts.len() {
            rest.ends_with(part).then(|| rest.len() - part.len())
        } else {
            rest.find(part)
        };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// Whether `lines` are what a document shows as `shown`.
fn output_matches(shown: &[String], lines: &[String]) -> bool {
    match shown.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=lines.len()).any(|skipped| output_matches(rest, &lines[skipped..]))
        }
        Some((first, rest)) => lines
            .split_first()
            .is_some_and(|(line, lines)| line_matches(first, line) && output_matches(rest, lines)),
    }
}

/// What is wrong with the commands of a page's blocks.
fn faults(blocks: &[&CodeBlock]) -> Vec<String> {
    let commands: Vec<ShownCommand> = blocks.iter().flat_map(|block| block.commands()).collect();
    let page = Page::new(blocks);
    let output = page.run(&commands);
    let mut outputs = output.split(SEPARATOR);
    let mut lines = outputs.next().unwrap_or_default();

    let mut faults = Vec::new();
    for (number, command) in commands.iter().enumerate() {
        let place = format!("{}:{}: {}", blocks[0].file, command.line, command.text);
        let Some((status, next)) = outputs.next().and_then(|rest| rest.split_once('\n')) else {
            faults.push(format!("{place}: the shell ended: {lines}"));
            break;
        };
        let next_shows_status = commands
            .get(number + 1)
            .is_some_and(|next| next.text == "echo $?");
        if status != "0" && !next_shows_status {
            faults.push(format!("{place}: status {status}: {lines}"));
        }
        // The separator is on a line of its own, whatever came before it.
        let found: Vec<String> = lines.trim_end().lines().map(comparable).collect();
        let shown: Vec<String> = command.output.iter().map(|line| comparable(line)).collect();
        if !shown.is_empty() && !output_matches(&shown, &found) {
            faults.push(format!(
                "{place}: not the output that is shown:\n{}",
                lines.trim_end()
            ));
        }
        lines = next;
    }
    faults
}

#[test]
fn commands_do_what_the_documents_show() {
    let all = all_blocks();
    let consoles: Vec<&CodeBlock> = all.iter().filter(|block| block.kind == "console").collect();
    assert!(consoles.len() > 3, "no blocks were found");

    let pages = consoles.chunk_by(|one, next| one.file == next.file);
    let faults: Vec<String> = pages.flat_map(faults).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn wrong_output_and_failures_are_faults() {
    let block = |text: &str| CodeBlock {
        file: "docs/x.md".to_owned(),
        line: 1,
        kind: "console".to_owned(),
        text: text.to_owned(),
    };
    let right = "$ echo in 0.3 s, at $HOME\nin 2.71 s, at /home/me\n$ seq 5\n1\n...\n5\n$ false\n$ echo $?\n1\n";
    assert_eq!(faults(&[&block(right)]), [""; 0]);
    let wrong = block("$ echo a b\na c\n$ false\n$ echo ab\na...c\n");
    let found = faults(&[&wrong]);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[1].contains("status 1"), "{found:?}");
}
