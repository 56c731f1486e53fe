//! One nar from a server to its reader: the choice of download, the transfer, retries.

mod body;
mod buffers;
pub(crate) mod candidate;
pub(crate) mod checked_copy;
pub(crate) mod choice;
mod counters;
pub(crate) mod errors;
mod first_stream;
mod input;
pub(crate) mod kept_beginning;
pub(crate) mod plan;
pub(crate) mod prefetch;
pub(crate) mod rates;
pub(crate) mod read_ahead;
mod resume;
pub(crate) mod retries;
mod segment_fetch;
mod segmentation;
mod segments;
pub(crate) mod server_streams;
pub(crate) mod spool;
mod spool_file;
pub(crate) mod spool_writer;
pub(crate) mod transfer;
mod trial;
mod watched_file;
pub(crate) mod whole_nar;

#[cfg(test)]
mod tests;
