//! Where a mirror is: the files that runs read and write there.

mod bucket;
mod bucket_texts;
mod directory;
mod error;
mod incoming_nar;
mod large;
mod lease;
mod mirror_target;
mod object_reader;
mod spool;
mod stored_object;
mod upload_records;

pub(crate) use error::TargetError;
pub(crate) use incoming_nar::IncomingNar;
pub(crate) use mirror_target::MirrorTarget;
pub(crate) use spool::UploadSpool;
