//! Items whose trees are ready are published and registered, references first, as many at a time
//! as possible.

use std::collections::HashSet;

use crate::store::Published;
use crate::substitute::closure::coordinator::{Coordinator, PlannedItemState};
use crate::substitute::closure::failure::Failure;
use crate::substitute::closure::registrar::{RegistrationBatch, RegistrationResult};
use crate::substitute::install::ItemError;

impl Coordinator<'_> {
    /// Publishes everything whose references are valid or registered with it, and has it registered,
    /// unless a batch is under way: then it waits for the next.
    pub(super) fn register_ready(&mut self) {
        if self.registrar.is_busy() {
            return;
        }

        let (mut batch, mut in_batch) = (Vec::new(), HashSet::new());
        // What was planned again has references behind it: not everything is found at once.
        while self.add_ready(&mut batch, &mut in_batch) {}

        let mut published = Vec::new();
        for index in batch {
            let state = std::mem::replace(&mut self.states[index], PlannedItemState::Registering);
            let (checked, lock) = match state {
                PlannedItemState::Ready(tree) => *tree,
                // A reference that could not be published has made it fail.
                other => {
                    self.states[index] = other;
                    continue;
                }
            };
            match self.fetch.store.publish(checked, lock) {
                Ok(item) => published.push((index, item)),
                Err(error) => self.fail(index, error.into()),
            }
        }
        self.register(published);
    }

    /// Adds to `batch` what is ready and has all its references, those in `batch` included;
    /// whether there was anything.
    fn add_ready(&self, batch: &mut Vec<usize>, in_batch: &mut HashSet<usize>) -> bool {
        let before = batch.len();
        for (index, item) in self.items.iter().enumerate() {
            let is_ready = matches!(self.states[index], PlannedItemState::Ready(_));
            let has_references = item.needs.iter().all(|need| {
                matches!(self.states[*need], PlannedItemState::Valid) || in_batch.contains(need)
            });
            if is_ready && has_references && !in_batch.contains(&index) {
                in_batch.insert(index);
                batch.push(index);
            }
        }
        batch.len() > before
    }

    fn register(&mut self, published: Vec<(usize, Published)>) {
        // A batch with an item that could not be published must not have its referrers: they are
        // removed here.
        let (indices, items): (Vec<usize>, Vec<Published>) = published
            .into_iter()
            .filter(|(index, _)| !matches!(self.states[*index], PlannedItemState::Failed))
            .unzip();
        if !indices.is_empty() {
            self.registrar
                .register(RegistrationBatch { indices, items });
        }
    }

    /// Takes what came of the batch under way.
    pub(super) fn registered(&mut self, batch: RegistrationResult) {
        self.registrar.finished();
        let indices = batch.indices;
        let failures: Vec<Failure> = match batch.result {
            Ok(refused) => {
                let failures = refused.into_iter().filter_map(|(path, error)| {
                    let mut places = indices.iter();
                    let index = places.find(|index| self.items[**index].path == path)?;
                    Some((*index, error.into()))
                });
                failures.collect()
            }
            Err(error) => {
                let not_tried = std::iter::repeat_with(|| ItemError::NotTried);
                let errors = std::iter::once(error).chain(not_tried);
                indices.iter().copied().zip(errors).collect()
            }
        };

        let failed: HashSet<usize> = failures.iter().map(|(index, _)| *index).collect();
        for index in indices {
            if !failed.contains(&index) {
                self.becomes_valid(index);
            }
        }
        for (index, error) in failures {
            // What refers to an item that has failed has failed with it, or has another build.
            if matches!(self.states[index], PlannedItemState::Registering) {
                self.fail(index, error);
            }
        }
    }
}
