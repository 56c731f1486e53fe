//! One item: a download, unpacked and verified at its destination; and what to do when that fails.

mod attempt_errors;
mod attempts;
mod available;
mod errors;
mod installer;
pub(crate) mod item;
mod retry;

pub(crate) use attempt_errors::{AttemptError, FailureClass};
pub(crate) use available::{AvailableItem, check_free_space};
pub(crate) use errors::ItemError;
pub(crate) use installer::{Installer, UnpackRequest};
