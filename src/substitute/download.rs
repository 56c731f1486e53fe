//! One nar from a server to whoever unpacks it: which download, its bytes, what happens when they stop.

mod body;
mod buffers;
pub(crate) mod choice;
mod input;
pub(crate) mod prefetch;
mod resume;
pub(crate) mod retries;
mod segments;
pub(crate) mod transfer;
mod trial;

#[cfg(test)]
mod tests;
