//! `subst fetch`: fetches items and everything they refer to.

mod dry_run;
mod gc_roots;
mod output_tree;
mod report;
mod run;
mod summary;

pub(crate) use run::run;
