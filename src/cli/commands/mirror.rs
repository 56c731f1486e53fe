//! `subst mirror`: copies narinfos and nars of servers to a directory.

mod hint;
mod items;
mod report;
mod run;

pub(crate) use run::run;
