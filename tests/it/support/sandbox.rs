//! A place to work in: a directory with a home, a settings file and an ACL, room for a store, and
//! nothing of the caller's environment.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::{Kind, wait_until};

/// The directory of one test; removed in the end, read-only items too.
pub(crate) struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        stop_ignoring_interrupts();
        let dir = tempfile::Builder::new()
            .prefix("subst-test-")
            .tempdir()
            .unwrap();
        let sandbox = Self { dir };
        set_mode(sandbox.dir.path(), 0o700);
        sandbox.make_directory("home");
        sandbox.write_safely("config.toml", "");
        let acl = std::fs::read_to_string(Kind::Guix.directory().join("acl")).unwrap();
        sandbox.write_safely("acl", &acl);
        sandbox
    }

    /// Makes a directory that only its owner may change, whatever the umask is.
    pub(crate) fn make_directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).unwrap();
        set_mode(&path, 0o755);
        path
    }

    /// Writes a file that only its owner may change, whatever the umask is.
    pub(crate) fn write_safely(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    /// Writes a file that only its owner may change, and makes the directories above it, which only
    /// their owner may change either.
    pub(crate) fn write_config(&self, name: &str, text: &str) -> PathBuf {
        let mut directory = self.path("");
        for part in Path::new(name).parent().into_iter().flatten() {
            directory.push(part);
            std::fs::create_dir_all(&directory).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&directory, mode).unwrap();
        }
        self.write_safely(name, text)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The root that [`Sandbox::subst`] works on.
    pub(crate) fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// Removes the root, with its lookup cache.
    pub(crate) fn remove_root(&self) {
        make_writable(&self.root());
        std::fs::remove_dir_all(self.root()).unwrap();
    }

    /// The program with `arguments` and nothing else: no root, no servers.
    pub(crate) fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_subst"));
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("SUBST_CONFIG", self.path("config.toml"))
            // Servers that fail for good are the rule in tests.
            .env("SUBST_RETRY_TIME", "2s")
            // The disk is busy with what other tests and programs write.
            .env("SUBST_SYNC", "none")
            // Lines about progress depend on how long a run takes.
            .env("SUBST_PROGRESS", "none")
            .current_dir(self.dir.path())
            .args(arguments);
        command
    }

    /// The program on this sandbox's root, for the store and the keys of `kind`.
    pub(crate) fn command(&self, kind: Kind, url: &str, arguments: &[&str]) -> Command {
        let mut command = self.bare(arguments);
        command
            .arg("--root")
            .arg(self.root())
            .args(["--substitute-urls", url]);
        match kind {
            Kind::Guix => command.arg("--acl").arg(self.path("acl")),
            Kind::NixBrotli | Kind::NixLz4 | Kind::NixXz | Kind::NixZstd => {
                let key = kind.directory().parent().unwrap().join("public-key");
                let key = std::fs::read_to_string(key).unwrap();
                command.args([
                    "--store-dir",
                    "/nix/store",
                    "--trusted-public-keys",
                    key.trim(),
                ])
            }
        };
        command
    }

    /// Runs the program on the Guix fixtures' store and keys.
    pub(crate) fn subst(&self, url: &str, arguments: &[&str]) -> Run {
        run(self.command(Kind::Guix, url, arguments))
    }

    /// The store directory of the root.
    pub(crate) fn store(&self) -> PathBuf {
        self.root().join("gnu/store")
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        make_writable(self.dir.path());
    }
}

/// Directories of store items are read-only, and only root can remove what is in those.
pub(crate) fn make_writable(dir: &Path) {
    let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

/// How a run ended and what it said.
#[derive(Debug)]
pub(crate) struct Run {
    /// `None`: killed by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// It must have ended with `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    /// It must have said `words` on standard error.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        assert!(
            self.stderr.contains(words),
            "expected `{words}` in: {}",
            self.stderr
        );
        self
    }

    /// It must have printed exactly `text`.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert_eq!(self.stdout, text, "{}", self.stderr);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `command` to its end, which must come soon.
#[track_caller]
pub(crate) fn run(command: Command) -> Run {
    Running::start(command, "").end()
}

/// The same with `input` to read.
#[track_caller]
pub(crate) fn run_with_input(command: Command, input: &str) -> Run {
    Running::start(command, input).end()
}

/// The first line that `command` writes to standard error; then it is killed.
#[track_caller]
pub(crate) fn first_line_of_stderr(mut command: Command) -> String {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    line
}

/// Lets interrupts and hangups end this process, so that those end the programs that it starts.
///
/// A shell has what it runs in the background ignore interrupts, and `nohup` hangups, and programs inherit that.
#[expect(
    unsafe_code,
    reason = "the disposition of a signal has no safe interface"
)]
fn stop_ignoring_interrupts() {
    for signal in [libc::SIGINT, libc::SIGHUP] {
        // SAFETY: no handler is set, and none is replaced.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// A program under way.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// Nothing where standard output is not read here.
    stdout: Option<JoinHandle<String>>,
    stderr: JoinHandle<String>,
}

impl Running {
    pub(crate) fn start(command: Command, input: &str) -> Self {
        let mut running = Self::start_with(command, Stdio::piped(), Stdio::piped());
        // A program that does not read its input closes it.
        let mut stdin = running.child.stdin.take().unwrap();
        let _ = stdin.write_all(input.as_bytes());
        running
    }

    /// Starts the program with this input and output.
    pub(crate) fn start_with(
        mut command: Command,
        stdin: impl Into<Stdio>,
        stdout: impl Into<Stdio>,
    ) -> Self {
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().map(read_all);
        let stderr = read_all(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Kills the program, and waits until it has ended: it holds its locks until then.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    #[track_caller]
    pub(crate) fn end(mut self) -> Run {
        let mut status = None;
        let ended = wait_until(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if !ended {
            self.kill();
        }
        let stdout = self.stdout.map(|stdout| stdout.join().unwrap());
        let (stdout, stderr) = (stdout.unwrap_or_default(), self.stderr.join().unwrap());
        assert!(ended, "it did not end: {stdout}{stderr}");
        Run {
            code: status.unwrap().code(),
            stdout,
            stderr,
        }
    }
}

fn read_all(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}
