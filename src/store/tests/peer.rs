//! Another process that takes locks and collects garbage as guix-daemon or Nix do, to contend
//! with. It is this test binary again, running the one ignored test below and taking commands
//! from its standard input: record locks belong to a process, so threads cannot play this.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, flock};

/// The other process. It is killed when dropped.
pub(super) struct Peer {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<std::process::ChildStderr>,
}

impl Peer {
    pub(super) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--ignored",
                "--nocapture",
                "store::tests::peer::serve",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            commands,
            answers,
        }
    }

    /// Gives a command without waiting for its end.
    pub(super) fn tell(&mut self, command: &str, path: &Path) {
        writeln!(self.commands, "{command} {}", path.display()).unwrap();
    }

    /// The answer to the oldest command not answered so far.
    pub(super) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(super) fn ask(&mut self, command: &str, path: &Path) -> String {
        self.tell(command, path);
        self.hear()
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "is the other process of the tests around it"]
fn serve() {
    let mut held = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (command, path) = line.split_once(' ').unwrap();
        let path = Path::new(path);
        let answer = match command {
            // The daemon's way with a lock file, waiting.
            "lock" => loop {
                let file = open(path);
                record_lock(&file, libc::F_WRLCK, true);
                if file.metadata().unwrap().len() == 0 {
                    held.push(file);
                    break "locked".to_owned();
                }
            },
            // Whatever the file contains.
            "lock-any" => {
                let file = open(path);
                record_lock(&file, libc::F_WRLCK, true);
                held.push(file);
                "locked".to_owned()
            }
            // Opens it, as the first step of locking it does.
            "open" => {
                held.push(open(path));
                "opened".to_owned()
            }
            // The second step, with what was opened last.
            "lock-opened" => {
                let file = held.pop().unwrap();
                record_lock(&file, libc::F_WRLCK, true);
                match file.metadata().unwrap().len() {
                    0 => "locked".to_owned(),
                    _ => "stale".to_owned(),
                }
            }
            "try" => match record_lock(&open(path), libc::F_WRLCK, false) {
                true => "free".to_owned(),
                false => "busy".to_owned(),
            },
            "try-flock" => match flock(open(path), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => "free".to_owned(),
                Err(_) => "busy".to_owned(),
            },
            // As Nix locks, or another process of this program: by the open file.
            "flock" => {
                let file = open(path);
                flock(&file, FlockOperation::LockExclusive).unwrap();
                held.push(file);
                "locked".to_owned()
            }
            // Gives the lock on a file up for good.
            "release" => {
                std::fs::remove_file(path).unwrap();
                held.pop().unwrap().write_all(b"d").unwrap();
                "released".to_owned()
            }
            // Begins to collect: holds the locks that a collector holds until "end".
            "collect" => collect(path, &mut held),
            "end" => {
                held.clear();
                "ended".to_owned()
            }
            other => panic!("unknown command {other}"),
        };
        eprintln!("{answer}");
    }
}

/// Locks out new temp roots, removes files of the dead, and reads those of the living.
fn collect(state: &Path, held: &mut Vec<File>) -> String {
    let gc_lock = open(&state.join("gc.lock"));
    record_lock(&gc_lock, libc::F_WRLCK, true);
    held.push(gc_lock);
    let mut roots = Vec::new();
    for entry in state.join("temproots").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let mut file = open(&path);
        if record_lock(&file, libc::F_WRLCK, false) {
            std::fs::remove_file(&path).unwrap();
            file.write_all(b"d").unwrap();
            continue;
        }
        record_lock(&file, libc::F_RDLCK, true);
        // Through this descriptor: closing another one of the file would drop the lock.
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        roots.extend(text.split_terminator('\0').map(str::to_owned));
        held.push(file);
    }
    roots.sort();
    format!("roots {}", roots.join(" "))
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

/// A record lock of this process, as F_SETLK or F_SETLKW takes it.
fn record_lock(file: &File, kind: libc::c_int, wait: bool) -> bool {
    let request = super::super::lock_kind::record(kind);
    let argument = if wait {
        FcntlArg::F_SETLKW(&request)
    } else {
        FcntlArg::F_SETLK(&request)
    };
    fcntl(file, argument).is_ok()
}
