//! Runs that wait for items which servers are still preparing, such as `guix publish --cache` with a nar that nobody
//! has requested before.

use std::collections::HashMap;

use super::failure::MirrorFailure;
use super::run::{Mirror, MirrorReport};
use super::target::MirrorTarget;
use crate::format::store_path::StorePath;
use crate::substitute::outcome::LookupOutcome;
use crate::substitute::preparation::PreparationWait;

impl Mirror<'_> {
    /// The same as [`Mirror::run`], again and again for what was skipped as long as servers prepare some of it.
    ///
    /// # Errors
    /// As for [`Mirror::run`].
    pub(crate) fn run_with_waits(
        &self,
        target: &MirrorTarget,
        items: Vec<StorePath>,
        mut wait: PreparationWait,
    ) -> Result<MirrorReport, MirrorFailure> {
        let mut report = self.run(target, items)?;
        loop {
            let preparing = report.preparing();
            if preparing == 0 || !wait.has_time() {
                return Ok(report);
            }
            wait.wait(preparing, self.progress);

            let skipped = report.items.iter().filter(|item| item.result.is_err());
            let skipped = skipped.map(|item| item.path.clone()).collect();
            report.add_later(self.run(target, skipped)?);
            if report.preparing() < preparing {
                wait.restart();
            }
        }
    }
}

impl MirrorReport {
    /// How many items servers were still preparing.
    fn preparing(&self) -> usize {
        let failures = self
            .items
            .iter()
            .filter_map(|item| item.result.as_ref().err());
        let preparing = failures.filter(|failure| match failure {
            MirrorFailure::Unavailable(answers) => {
                let mut outcomes = answers.iter().map(|(_, outcome)| outcome);
                outcomes.any(|outcome| matches!(outcome, LookupOutcome::Preparing(_)))
            }
            _ => false,
        });
        preparing.count()
    }

    /// Adds what came of a `later` run for the items that were skipped.
    fn add_later(&mut self, later: Self) {
        self.nars += later.nars;
        self.nar_bytes = self.nar_bytes.saturating_add(later.nar_bytes);
        self.sent_bytes = later.sent_bytes;
        let places = self.items.iter().enumerate();
        let places: HashMap<StorePath, usize> = places
            .map(|(place, item)| (item.path.clone(), place))
            .collect();
        for item in later.items {
            match places.get(&item.path) {
                Some(place) if self.items[*place].result.is_err() => self.items[*place] = item,
                Some(_) => {}
                None => self.items.push(item),
            }
        }
    }
}
