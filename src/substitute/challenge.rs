//! Whether servers have the same builds as this machine, and in what they differ.
//!
//! Claims are compared whoever has signed them, as `guix challenge` does; nothing is unpacked, and
//! no store is changed.

mod comparison;
mod differences;
mod inspection;
mod local_build;

pub(crate) use comparison::{ChallengeResult, Reference, compare};
pub(crate) use differences::{ComparedNar, LocalNar, NarComparison, ServerNar};
pub(crate) use inspection::{BuildInspection, InspectedBuild, InspectionTally};
pub(crate) use local_build::{CountedOrigins, LocalBuild, LocalHash};
