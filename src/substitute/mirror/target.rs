//! Where a mirror is: the files that runs read and write there.

mod directory;
mod error;
mod mirror_target;

pub(crate) use error::TargetError;
pub(crate) use mirror_target::MirrorTarget;
