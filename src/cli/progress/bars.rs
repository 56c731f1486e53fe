//! Bars on a terminal: one for lookups, one for everything that is fetched, and one for each
//! download under way.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::output::{self, say};
use crate::cli::settings::Verbosity;
use crate::format::store_path::StorePath;
use crate::substitute::progress::{Event, Progress};

use super::{Tally, words};

/// Shows progress with bars.
pub(super) struct Bars {
    verbosity: Verbosity,
    screen: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tally: Tally,
    lookups: Option<ProgressBar>,
    total: Option<ProgressBar>,
    downloads: HashMap<StorePath, ProgressBar>,
}

impl Bars {
    pub(super) fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, screen: MultiProgress::new(), state: Mutex::default() }
    }

    fn looking(&self, state: &mut State) {
        let (done, total) = (state.tally.looked_up, state.tally.to_look_up);
        if done == total {
            if let Some(bar) = state.lookups.take() {
                bar.finish_and_clear();
            }
            return;
        }
        let bar = state.lookups.get_or_insert_with(|| {
            let template = "looking up  [{bar:20}] {pos}/{len}  {wide_msg}";
            self.screen.add(ProgressBar::new(0).with_style(style(template)))
        });
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        let rate = done as f64 / bar.elapsed().as_secs_f64().max(0.1);
        bar.set_message(format!("{rate:.0}/s  {}", state.tally.servers));
    }

    fn planned(&self, state: &mut State, items: usize) {
        if let Some(bar) = state.lookups.take() {
            bar.finish_and_clear();
        }
        let template = "unpacked    [{bar:30}] {pos}/{len} items, {msg}";
        let bar = ProgressBar::new(items as u64).with_style(style(template));
        state.total = Some(self.screen.add(bar));
    }

    fn started(&self, state: &mut State, item: &StorePath, size: Option<u64>) {
        let template = match size {
            Some(_) => "  {wide_msg} {bytes}/{total_bytes} {binary_bytes_per_sec}",
            None => "  {wide_msg} {bytes} {binary_bytes_per_sec}",
        };
        let bar = ProgressBar::new(size.unwrap_or(0)).with_style(style(template));
        let bar = self.screen.add(bar.with_message(item.name().to_owned()));
        if let Some(earlier) = state.downloads.insert(item.clone(), bar) {
            earlier.finish_and_clear();
        }
    }

    fn ended(state: &mut State, item: &StorePath) {
        if let Some(bar) = state.downloads.remove(item) {
            bar.finish_and_clear();
        }
        Self::show_total(state);
    }

    fn show_total(state: &State) {
        if let Some(bar) = &state.total {
            let (_, size) = state.tally.planned;
            let (bytes, size) = (output::bytes(state.tally.bytes()), output::bytes(size));
            bar.set_position(state.tally.unpacked as u64);
            bar.set_message(format!("{bytes} of {size} downloaded"));
        }
    }

    fn finish(state: &mut State) {
        let bars = state.lookups.take().into_iter().chain(state.total.take());
        for bar in bars.chain(state.downloads.drain().map(|(_, bar)| bar)) {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn event(&self, event: Event<'_>) {
        if let Some(line) = words(&event, self.verbosity) {
            self.screen.suspend(|| say(&line));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tally.note(&event);
        match event {
            Event::Looking { .. } => self.looking(&mut state),
            Event::Started { item, download_size, .. } => {
                self.started(&mut state, item, download_size);
            }
            Event::Progressed { item, downloaded } => {
                if let Some(bar) = state.downloads.get(item) {
                    bar.set_position(downloaded);
                }
                Self::show_total(&state);
            }
            Event::Unpacked { item, .. } | Event::Failed { item } => {
                Self::ended(&mut state, item);
            }
            Event::Planned { items, .. } => self.planned(&mut state, items),
            Event::Finished => Self::finish(&mut state),
            Event::Registered { .. }
            | Event::ServerDown { .. }
            | Event::Warning(_)
            | Event::SourceFailed { .. } => {}
        }
    }

    fn aside(&self, write: &mut dyn FnMut()) {
        self.screen.suspend(write);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // Fails only when the terminal is gone.
        let _ = self.screen.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("templates are constants");
    style.progress_chars("##-")
}
