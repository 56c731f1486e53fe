//! One item: a download, unpacked and verified at its destination; and what to do when that fails.

mod attempt_errors;
mod attempts;
mod attempts_text;
mod available;
mod downloads;
mod early;
mod errors;
mod in_flight;
mod installer;
pub(crate) mod item;
mod kept;
mod ranked;
mod retry;
mod space;

pub(crate) use attempt_errors::{AttemptError, FailureClass};
pub(crate) use available::AvailableItem;
pub(crate) use early::HeldEvents;
pub(crate) use errors::{ItemError, UnavailableAt};
pub(crate) use in_flight::InFlightTransfers;
pub(crate) use installer::{Installer, UnpackRequest};
