//! Mirrors: narinfos and nars of servers, copied byte for byte to a place that other clients fetch from.
//!
//! Only narinfos that the authorized keys and the policy allow are copied, and each nar is verified
//! while it arrives, neither unpacked nor compressed again. A narinfo is written after its nars and
//! after the narinfos of its references, so that readers never see one that leads nowhere.

mod cache_info;
mod collection;
mod failure;
mod findings;
mod incoming;
mod incomplete;
mod inventory;
mod key;
mod listing;
mod lookup;
mod narinfos;
mod nars;
mod order;
mod plan;
mod record;
mod retention;
mod run;
mod signatures;
mod stored;
mod tally;
mod target;
mod text;
mod tombstones;
mod verification;
mod waiting;
mod walk;

pub(crate) use cache_info::{is_mirror, other_store};
pub(crate) use collection::{MirrorCollection, MirrorCollector};
pub(crate) use failure::MirrorFailure;
pub(crate) use findings::{MirrorFault, MirrorFinding, MirrorVerification};
pub(crate) use listing::{list_all, list_bucket};
pub(crate) use lookup::MirrorTrust;
pub(crate) use narinfos::{MirrorStatus, MirroredItem};
pub(crate) use retention::MirrorRetention;
pub(crate) use run::{Mirror, MirrorReport};
pub(crate) use target::{MirrorTarget, TargetError, UploadSpool};
pub(crate) use verification::MirrorVerifier;
