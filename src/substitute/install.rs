//! One item: a download, unpacked and verified at its destination; and what to do when that fails.

mod attempts;
mod errors;
mod installer;
pub(crate) mod item;
mod retry;

pub(crate) use errors::{AttemptError, FailureClass, ItemError};
pub(crate) use installer::{Installer, UnpackRequest};
