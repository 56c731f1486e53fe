//! `subst challenge`: compares this machine's builds with those of servers.

mod challenged;
mod diff;
mod json;
mod run;
mod text;

pub(crate) use run::run;
