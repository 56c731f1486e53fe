//! Every command that reaches servers is confined, and works. Each runs in a process of its own, which
//! then tries to leave the sandbox.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc;

use super::{link_targets, renewed_file};
use crate::sandbox::SandboxRules;
use crate::sandbox::tests::{
    INPUT, assert_confined, assert_not_confined, directory_of_test, is_supported, run_alone,
};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/guix");

/// An item of the fixtures.
fn item() -> String {
    let roots = std::fs::read_to_string(format!("{FIXTURES}/roots")).unwrap();
    roots.trim().to_owned()
}

/// Runs the program in this process, with the fixtures as its server and a root in `directory`.
fn run_program(directory: &Path, arguments: &[&str]) -> bool {
    let urls = format!("file://{FIXTURES}");
    let acl = format!("{FIXTURES}/acl");
    let mut command: Vec<OsString> = vec!["subst".into()];
    command.extend(arguments.iter().map(OsString::from));
    if arguments[0] != "substitute" {
        command.extend(["--root".into(), directory.join("root").into()]);
    }
    for argument in [
        "--substitute-urls",
        &urls,
        "--acl",
        &acl,
        "--sandbox",
        "require",
    ] {
        command.push(argument.into());
    }
    let exit = crate::cli::run(command);
    format!("{exit:?}") == format!("{:?}", std::process::ExitCode::SUCCESS)
}

/// Runs a command in a process of its own, which fails unless it is confined afterward.
fn check(name: &str) {
    if !is_supported() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("outside")).unwrap();
    std::fs::write(dir.path().join("outside/secret"), "text").unwrap();
    // The helper is confined when its first request says where it writes.
    let item = item();
    let store = dir.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let destination = store.join(item.rsplit('/').next().unwrap());
    let request = format!("substitute {item} {}\n", destination.display());
    std::fs::write(dir.path().join(INPUT), request).unwrap();
    run_alone(&format!("cli::confinement::tests::{name}"), dir.path());
    make_writable(dir.path());
}

/// Lets the items below `directory` be removed.
fn make_writable(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in directory.read_dir().unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            let writable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(entry.path(), writable).unwrap();
            make_writable(&entry.path());
        }
    }
}

/// What the other process of a test does.
fn run_and_escape(arguments: &[&str]) {
    let directory = directory_of_test();
    let outside = directory.join("outside");
    assert_not_confined(&outside);
    assert!(run_program(&directory, arguments), "{arguments:?}");
    assert_confined(&outside);
}

/// The tests of one command: the process that is confined, and the one that starts it.
macro_rules! commands {
    ($($name:ident, $process:ident: $arguments:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($process));
            }

            #[test]
            #[ignore = "is the other process of a test"]
            fn $process() {
                let arguments: Vec<String> = $arguments;
                run_and_escape(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            }
        )*
    };
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn destination() -> String {
    let destination = directory_of_test().join("trees/new");
    std::fs::create_dir(destination.parent().unwrap()).unwrap();
    destination.display().to_string()
}

commands! {
    fetch_is_confined, fetch: words(&["fetch", &item()]);
    fetch_without_a_store_is_confined, fetch_output:
        words(&["fetch", &item(), "--output", &destination()]);
    a_dry_run_is_confined, dry_run: words(&["fetch", "--dry-run", &item()]);
    query_is_confined, query: words(&["query", "--closure", &item()]);
    a_report_is_confined, report:
        words(&["query", "--cache-miss-report", "--probe-nars", &item()]);
    servers_is_confined, servers: words(&["servers"]);
    the_query_helper_is_confined, query_helper: words(&["substitute", "--query"]);
    the_substitute_helper_is_confined, substitute_helper: words(&["substitute", "--substitute"]);
}

#[test]
fn certificates_may_be_symlinks_out_of_their_directory() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("authority.pem");
    std::os::unix::fs::symlink("/elsewhere/authority.pem", &link).unwrap();
    std::fs::write(dir.path().join("plain.pem"), "text").unwrap();
    assert_eq!(link_targets(dir.path()), [link]);
}

#[test]
fn a_command_without_servers_is_not_confined() {
    check("cache_info");
}

#[test]
#[ignore = "is the other process of a test"]
fn cache_info() {
    let directory = directory_of_test();
    assert!(run_program(&directory, &["cache", "info"]));
    assert_not_confined(&directory.join("outside"));
}

#[test]
fn a_token_that_is_renewed_remains_readable() {
    if is_supported() {
        let dir = tempfile::tempdir().unwrap();
        run_alone("cli::confinement::tests::renewal", dir.path());
    }
}

/// A file that is replaced by rename, and one behind symlinks as a container has it, of which one is changed.
#[test]
#[ignore = "is the other process of a test"]
fn renewal() {
    let directory = directory_of_test();
    let (plain, linked) = (
        directory.join("plain/token"),
        directory.join("linked/token"),
    );
    for name in ["plain", "linked/old", "linked/new"] {
        std::fs::create_dir_all(directory.join(name)).unwrap();
    }
    for name in ["plain/token", "linked/old/token"] {
        std::fs::write(directory.join(name), "old").unwrap();
    }
    for name in ["plain/next", "linked/new/token"] {
        std::fs::write(directory.join(name), "new").unwrap();
    }
    symlink("old", directory.join("linked/data")).unwrap();
    symlink("data/token", &linked).unwrap();

    // The thread is started before, and thus not confined.
    let (renew, renewing) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        renewing.recv().unwrap();
        std::fs::rename(directory.join("plain/next"), directory.join("plain/token")).unwrap();
        symlink("new", directory.join("linked/next")).unwrap();
        std::fs::rename(directory.join("linked/next"), directory.join("linked/data")).unwrap();
    });
    let rules = SandboxRules {
        readable: [&plain, &linked]
            .into_iter()
            .flat_map(|file| renewed_file(file))
            .collect(),
        writable: Vec::new(),
    };
    crate::sandbox::enter(&rules).unwrap();
    for (file, text) in [(&plain, "old"), (&linked, "old")] {
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
    }

    renew.send(()).unwrap();
    thread.join().unwrap();
    for file in [plain, linked] {
        assert_eq!(std::fs::read_to_string(file).unwrap(), "new");
    }
}

#[test]
fn a_token_in_a_directory_of_everything_opens_nothing_else() {
    for (file, count) in [("/token", 1), ("/etc/token", 1), ("/run/secrets/token", 2)] {
        assert_eq!(renewed_file(Path::new(file)).len(), count, "{file}");
    }
}
