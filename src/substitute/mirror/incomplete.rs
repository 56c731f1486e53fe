//! Narinfos that refer to items which neither a server nor the mirror has. Nothing is downloaded for them, since
//! they would not become visible, and a server that refers to less is used instead.

use std::collections::HashMap;

use super::failure::MirrorFailure;
use super::plan::{MirrorPlanItem, MirrorPlanner, PlannedAction};
use crate::format::narinfo::NarInfo;
use crate::format::store_path::{StorePath, StorePathRef};

/// Leaves out the narinfos of `planned` copies that lead to something missing, and copies without any.
pub(super) fn leave_out_incomplete(planner: &MirrorPlanner<'_>, planned: &mut [MirrorPlanItem]) {
    let mut missing: Vec<StorePath> = planned
        .iter()
        .filter(|item| item.action.is_err() && !item.is_stored)
        .map(|item| item.path.clone())
        .collect();
    let referrers = match missing.is_empty() {
        true => HashMap::new(),
        false => referrers(planned),
    };
    while let Some(missing_item) = missing.pop() {
        for place in referrers.get(&missing_item).into_iter().flatten() {
            let item = &mut planned[*place];
            let Ok(PlannedAction::Copy(copy)) = &mut item.action else {
                continue;
            };
            copy.narinfos
                .retain(|found| !refers_to(&found.narinfo, missing_item.as_ref()));
            copy.bytes = planner.nar_bytes(&copy.narinfos, &copy.methods);
            if copy.narinfos.is_empty() {
                item.action = Err(MirrorFailure::MissingReference(missing_item.clone()));
                if !item.is_stored {
                    missing.push(item.path.clone());
                }
            }
        }
    }
}

/// The places of the copies with a narinfo that refers to each item, without references to themselves.
fn referrers(planned: &[MirrorPlanItem]) -> HashMap<StorePath, Vec<usize>> {
    let mut referrers: HashMap<StorePath, Vec<usize>> = HashMap::new();
    for (place, item) in planned.iter().enumerate() {
        let Ok(PlannedAction::Copy(copy)) = &item.action else {
            continue;
        };
        let narinfos = copy.narinfos.iter();
        for reference in narinfos.flat_map(|found| found.narinfo.references()) {
            if reference != item.path.as_ref() {
                let places = referrers.entry(reference.to_path()).or_default();
                places.push(place);
            }
        }
    }
    referrers
}

fn refers_to(narinfo: &NarInfo, item: StorePathRef<'_>) -> bool {
    narinfo.references().any(|reference| reference == item)
}
