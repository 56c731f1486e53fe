//! `subst verify`: compares the store with its database and with the names in `.links`, and
//! repairs it.

mod lines;
mod repair;
mod run;
mod view;

pub(crate) use run::run;
