//! Progress for people (live lines, plain lines) and for scripts (JSON events), all on standard error.

mod json;
mod layout;
mod live;
mod messages;
mod plain;
mod rate;
mod run;
mod select;
mod style;
mod tally;
mod totals;

pub(crate) use run::RunProgress;
pub(crate) use select::for_mode;
pub(crate) use style::TerminalStyle;
#[cfg(test)]
pub(crate) use totals::FetchedItem;
pub(crate) use totals::{FetchTotals, ServerTransferTotals, short_address};
