//! Looks an item up, and fetches it and everything it refers to into a store below a directory:
//! `look_up_and_fetch DIRECTORY SERVER_URL ACL_FILE STORE_PATH`
//!
//! This is the program `subst fetch` in another one. It prints to standard output and standard error,
//! as the program does. It may be called once in a process: before it connects to a server, it
//! confines the process to the files that this fetch needs.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let mut command: Vec<OsString> = vec!["subst".into(), "fetch".into()];
    for option in ["--root", "--substitute-urls", "--acl"] {
        command.push(option.into());
        command.extend(arguments.next());
    }
    command.extend(arguments);

    // 0: fetched; 1: no server has it; 3: refused; 4: the network; 5: this machine.
    subst::cli::run(command)
}
