//! `subst endorse`: publishes signed narinfos for nars that lie elsewhere.

mod destination;
mod report;
mod run;
mod secret_key;
mod withdrawal;

pub(crate) use run::run;
