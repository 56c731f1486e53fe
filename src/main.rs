//! The `subst` program: call the command line, turn its result into a process exit.

fn main() {}
