//! `subst verify`: compares the store with its database and with the names in `.links`.

mod lines;
mod run;
mod view;

pub(crate) use run::run;
