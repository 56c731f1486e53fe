//! Progress for people (bars, lines) and for scripts (JSON events), all on standard error.

mod bars;
mod json;
mod messages;
mod plain;
mod screen;
mod select;
mod tally;

pub(crate) use select::for_mode;
