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
            let template = "looking up  [{bar:30}] {pos}/{len} {per_sec}";
            self.screen.add(ProgressBar::new(0).with_style(style(template)))
        });
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }

    fn started(&self, state: &mut State, item: &StorePath, size: Option<u64>) {
        let looked_up = state.tally.to_look_up as u64;
        state.total.get_or_insert_with(|| {
            let template = "unpacked    [{bar:30}] {pos}/{len} items, {msg}";
            self.screen.add(ProgressBar::new(looked_up).with_style(style(template)))
        });
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

    fn finished(state: &mut State, item: &StorePath) {
        if let Some(bar) = state.downloads.remove(item) {
            bar.finish_and_clear();
        }
        if let Some(bar) = &state.total {
            bar.set_position(state.tally.unpacked as u64);
            bar.set_message(format!("{} downloaded", output::bytes(state.tally.bytes())));
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
            }
            Event::Unpacked { item, .. } | Event::Failed { item } => {
                Self::finished(&mut state, item);
            }
            Event::Registered { .. }
            | Event::ServerDown { .. }
            | Event::Warning(_)
            | Event::SourceFailed { .. } => {}
        }
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
