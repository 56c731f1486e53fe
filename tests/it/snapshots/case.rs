//! One snapshot: a sentence about what it shows, commands for a shell, and the outcome of the last one.
//!
//! ```text
//! The settings file has an unknown setting.
//! > echo 'job = 3' > config.toml
//! $ subst servers --config config.toml
//! [exit 2]
//! [stdout]
//! [stderr]
//! subst: error: ...
//! ```
//!
//! Commands behind `>` prepare the run, which is behind `$`. Each may be continued on the next lines by a
//! backslash. Their working directory is empty; the variables of [`super::servers`] name servers and items.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::servers::Servers;
use super::shown::{is_same, shown};
use crate::support::Sandbox;
use crate::support::sandbox::run;

/// Where the expected outcome begins.
const OUTCOME: &str = "\n[exit ";

/// A snapshot.
pub(super) struct Case {
    file: PathBuf,
    /// All up to the outcome.
    input: String,
    /// The outcome as recorded; empty for a new case.
    pub(super) expected: String,
}

impl Case {
    pub(super) fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let end = text
            .find(OUTCOME)
            .map_or(text.trim_end().len(), |at| at + 1);
        Self {
            file: file.to_owned(),
            input: text[..end].trim_end().to_owned(),
            expected: text[end..].trim_start().to_owned(),
        }
    }

    pub(super) fn name(&self) -> String {
        self.file.file_stem().unwrap().display().to_string()
    }

    /// The sentence that says what it shows.
    pub(super) fn title(&self) -> &str {
        self.input.lines().next().unwrap_or_default()
    }

    pub(super) fn expects(&self, outcome: &str) -> bool {
        is_same(&self.expected, outcome)
    }

    pub(super) fn write(&self, outcome: &str) {
        // What differs only in what is not compared stays as it is.
        if !self.expects(outcome) {
            std::fs::write(&self.file, format!("{}\n{outcome}", self.input)).unwrap();
        }
    }

    /// Runs the commands, and shows how the last one ended.
    pub(super) fn run(&self) -> String {
        let sandbox = Sandbox::new();
        sandbox.make_directory("work");
        let servers = Servers::start(&self.input, &sandbox);
        let (preparation, command) = self.commands();
        if !preparation.is_empty() {
            let ended = run(shell(&sandbox, &servers, &preparation));
            assert_eq!(ended.code, Some(0), "{}: {ended:?}", self.name());
        }

        let ended = run(shell(&sandbox, &servers, &command));
        let code = ended
            .code
            .map_or_else(|| "signal".to_owned(), |code| code.to_string());
        let [stdout, stderr] =
            [ended.stdout, ended.stderr].map(|text| shown(&text, &sandbox, &servers));
        format!("[exit {code}]\n[stdout]\n{stdout}[stderr]\n{stderr}")
    }

    /// The commands that prepare the run, and the run.
    pub(super) fn commands(&self) -> (String, String) {
        let (mut preparation, mut command) = (String::new(), String::new());
        let mut is_run = false;
        for line in self.input.lines().skip(1) {
            let text = match (line.strip_prefix("> "), line.strip_prefix("$ ")) {
                (Some(text), _) => text,
                (None, Some(text)) => {
                    is_run = true;
                    text
                }
                (None, None) => line,
            };
            let script = if is_run {
                &mut command
            } else {
                &mut preparation
            };
            script.push_str(text);
            script.push('\n');
        }
        assert!(!command.is_empty(), "{} runs nothing", self.name());
        (preparation, command)
    }
}

/// A shell that runs `script` where the program is `subst`, and nothing of the caller's environment
/// counts.
fn shell(sandbox: &Sandbox, servers: &Servers, script: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_subst")).parent().unwrap();
    let work = sandbox.path("work");
    let mut command = Command::new("/bin/sh");
    command
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", program.display()))
        .env("HOME", sandbox.path("home"))
        // The system's store, its ACL and its servers are those of the test.
        .env("GUIX_STATE_DIRECTORY", work.join("var"))
        .env("GUIX_CONFIGURATION_DIRECTORY", work.join("etc"))
        .env("NIX_CONF_DIR", work.join("etc-nix"))
        .env("SUBST_RETRY_TIME", "0")
        .envs(servers.variables())
        .current_dir(&work)
        .args(["-c", &format!("umask 022\n{script}")]);
    command
}
