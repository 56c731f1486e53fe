//! The order in which a batch of items becomes valid: whatever an item refers to comes first.

use std::collections::HashMap;

use super::error::StoreError;
use super::registration::Registration;
use crate::format::store_path::{StoreDir, StorePath};

/// `batch` with references before referrers, and each path once. References to items outside
/// the batch and to the item itself do not matter here.
pub(super) fn references_first<'a>(
    batch: &'a [Registration],
    store_dir: &StoreDir,
) -> Result<Vec<&'a Registration>, StoreError> {
    let by_path: HashMap<&StorePath, &Registration> =
        batch.iter().map(|item| (&item.path, item)).collect();
    let mut states: HashMap<&StorePath, State> = HashMap::with_capacity(batch.len());
    let mut ordered = Vec::with_capacity(batch.len());
    // A stack of its own, because closures are deeper than threads' stacks should have to be.
    let mut stack: Vec<(&Registration, usize)> = Vec::new();
    for first in batch {
        if !states.contains_key(&first.path) {
            states.insert(&first.path, State::Open);
            stack.push((first, 0));
        }
        while let Some((item, next)) = stack.last_mut() {
            let Some(reference) = item.references.get(*next) else {
                states.insert(&item.path, State::Done);
                ordered.push(by_path[&item.path]);
                stack.pop();
                continue;
            };
            *next += 1;
            if *reference == item.path {
                continue;
            }
            let Some(&referred) = by_path.get(reference) else {
                continue;
            };
            match states.get(reference) {
                None => {
                    states.insert(&referred.path, State::Open);
                    stack.push((referred, 0));
                }
                Some(State::Done) => {}
                Some(State::Open) => {
                    let circle = stack.iter().skip_while(|(item, _)| item.path != *reference);
                    let names = circle
                        .map(|(item, _)| store_dir.full_name(&item.path))
                        .collect();
                    return Err(StoreError::ReferenceCycle(names));
                }
            }
        }
    }
    Ok(ordered)
}

#[derive(Clone, Copy)]
enum State {
    /// On the way to its references.
    Open,
    /// In the result.
    Done,
}
