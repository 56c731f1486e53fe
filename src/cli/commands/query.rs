//! `subst query`: which items are available, and where.
//!
//! [`view`] holds what is shown, as data; [`table`], [`json`] and [`report`] show it.

mod files;
mod findings;
mod html;
mod json;
mod metrics;
mod report;
mod run;
mod table;
mod view;

pub(crate) use run::run;
