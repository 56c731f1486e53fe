//! The cache-miss report: what was missed, where, why, and what to do about it.

mod data;
mod group;
mod hint;
mod probes;
mod text;
mod totals;

pub(super) use data::CacheMissReport;
pub(super) use group::MissGroup;
pub(super) use text::lines as report_lines;
