//! `subst query`: which items are available, and where.
//!
//! [`view`] and [`words`] hold what is shown, as data; [`table`], [`json`] and [`report`] show it.

mod json;
mod report;
mod run;
mod table;
mod view;
mod words;

pub(crate) use run::run;
