//! Endorsements: narinfos of our own for nars that lie elsewhere, signed after comparing the pool's
//! nar with the local tree.

mod endorsement;
mod key;

pub(crate) use endorsement::{Endorsement, NotEndorsed};
pub(crate) use key::EndorsementKey;
