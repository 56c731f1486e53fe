//! Where a mirror is: the files that runs read and write there.

mod bucket;
mod directory;
mod error;
mod large;
mod lease;
mod mirror_target;
mod parts;
mod spool;

pub(crate) use error::TargetError;
pub(crate) use mirror_target::MirrorTarget;
pub(crate) use spool::UploadSpool;
