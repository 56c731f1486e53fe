//! Bars on a terminal: one for lookups, one for everything that is fetched, and one for each
//! download under way.

use std::collections::HashMap;
use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output::{self, Verbosity, say};
use crate::format::store_path::StorePath;
use crate::substitute::preparation::wait_text;
use crate::substitute::progress::{Progress, ProgressEvent};
use crate::sync::lock;

use super::messages::event_message;
use super::screen::Screen;
use super::tally::Tally;

/// Shows progress with bars.
pub(super) struct Bars {
    verbosity: Verbosity,
    screen: MultiProgress,
    state: Mutex<BarsState>,
}

#[derive(Default)]
struct BarsState {
    tally: Tally,
    lookups: Option<ProgressBar>,
    preparing: Option<ProgressBar>,
    total: Option<ProgressBar>,
    downloads: HashMap<StorePath, ProgressBar>,
}

impl Bars {
    pub(super) fn new(verbosity: Verbosity) -> Self {
        // As often as the library draws on terminals of its own.
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(Screen::default()), 20);
        Self::on(MultiProgress::with_draw_target(target), verbosity)
    }

    fn on(screen: MultiProgress, verbosity: Verbosity) -> Self {
        Self {
            verbosity,
            screen,
            state: Mutex::default(),
        }
    }

    fn looking(&self, state: &mut BarsState) {
        let (done, total) = (state.tally.looked_up, state.tally.to_look_up);
        if done == total {
            if let Some(bar) = state.lookups.take() {
                bar.finish_and_clear();
            }
            return;
        }

        let bar = state.lookups.get_or_insert_with(|| {
            let template = "looking up  [{bar:20}] {pos}/{len}  {wide_msg}";
            self.screen
                .add(ProgressBar::new(0).with_style(style(template)))
        });

        bar.set_length(total as u64);
        bar.set_position(done as u64);
        let rate = done as f64 / bar.elapsed().as_secs_f64().max(0.1);
        bar.set_message(format!("{rate:.0}/s  {}", state.tally.servers));
    }

    fn preparing(&self, state: &mut BarsState, text: String) {
        let bar = state.preparing.get_or_insert_with(|| {
            self.screen
                .add(ProgressBar::new(0).with_style(style("{wide_msg}")))
        });
        bar.set_message(text);
    }

    fn planned(&self, state: &mut BarsState, items: usize) {
        if let Some(bar) = state.lookups.take() {
            bar.finish_and_clear();
        }
        if let Some(total) = &state.total {
            total.set_length(items as u64);
            return Self::show_total(state);
        }

        // Five-digit counts and sizes of five digits fit into 80 columns.
        let template = "unpacked    [{bar:12}] {pos}/{len} items, {wide_msg}";
        let bar = ProgressBar::new(items as u64).with_style(style(template));
        state.total = Some(self.screen.add(bar));
        Self::show_total(state);
    }

    fn started(&self, state: &mut BarsState, item: &StorePath, size: Option<u64>) {
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

    fn ended(state: &mut BarsState, item: &StorePath) {
        if let Some(bar) = state.downloads.remove(item) {
            bar.finish_and_clear();
        }
        Self::show_total(state);
    }

    fn show_total(state: &BarsState) {
        if let Some(bar) = &state.total {
            let size = state.tally.planned.map_or(0, |(_, size)| size);
            let (bytes, size) = (output::bytes(state.tally.bytes()), output::bytes(size));
            bar.set_position(state.tally.unpacked as u64);
            bar.set_message(format!("{bytes} of {size} downloaded"));
        }
    }

    fn finish(state: &mut BarsState) {
        let bars = [&mut state.lookups, &mut state.preparing, &mut state.total];
        let bars = bars.into_iter().filter_map(Option::take);
        for bar in bars.chain(state.downloads.drain().map(|(_, bar)| bar)) {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn event(&self, event: ProgressEvent<'_>) {
        if let Some(line) = event_message(&event, self.verbosity) {
            self.screen.suspend(|| say(&line));
        }

        let mut state = lock(&self.state);
        state.tally.note(&event);
        if let Some(bar) = state
            .preparing
            .take_if(|_| !matches!(event, ProgressEvent::Preparing { .. }))
        {
            bar.finish_and_clear();
        }
        match event {
            ProgressEvent::Preparing {
                items,
                waited,
                limit,
                ..
            } => self.preparing(&mut state, wait_text(items, waited, limit)),
            ProgressEvent::Looking { .. } => self.looking(&mut state),
            ProgressEvent::Started {
                item,
                download_size,
                ..
            } => {
                self.started(&mut state, item, download_size);
            }
            ProgressEvent::Progressed { item, downloaded } => {
                if let Some(bar) = state.downloads.get(item) {
                    bar.set_position(downloaded);
                }
                Self::show_total(&state);
            }
            ProgressEvent::Unpacked { item, .. } | ProgressEvent::Failed { item, .. } => {
                Self::ended(&mut state, item);
            }
            ProgressEvent::Planned { items, .. } => self.planned(&mut state, items),
            ProgressEvent::Finished => Self::finish(&mut state),
            ProgressEvent::DownloadsPlanned(_)
            | ProgressEvent::Registered { .. }
            | ProgressEvent::ServerDown { .. }
            | ProgressEvent::Retrying { .. }
            | ProgressEvent::Warning(_)
            | ProgressEvent::SourceFailed { .. } => {}
        }
    }

    fn aside(&self, write: &mut dyn FnMut()) {
        self.screen.suspend(write);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // The screen never fails.
        let _ = self.screen.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("templates are constants");
    style.progress_chars("##-")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use indicatif::TermLike;

    use super::*;

    /// A terminal of 80 columns that keeps what is written on it.
    #[derive(Debug, Clone, Default)]
    struct Terminal(Arc<Mutex<Vec<String>>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, _n: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _n: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _n: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _n: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push(text.to_owned());
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bars_fit_into_eighty_columns() {
        let terminal = Terminal::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        let screen = MultiProgress::with_draw_target(target);
        let bars = Bars::on(screen, Verbosity::Normal);
        let name = "x".repeat(100);
        let item = StorePath::parse(&format!("{}-{name}", "0".repeat(32))).unwrap();
        let items = 12_345;
        bars.event(ProgressEvent::Planned {
            items,
            download_size: 871_319_912,
        });
        let (size, url) = (Some(123_456_789), "http://127.0.0.1/nar");
        let (announced, choice) = (size, None);
        bars.event(ProgressEvent::Started {
            item: &item,
            url,
            download_size: size,
            announced,
            choice,
        });
        for downloaded in [1_234_567, 123_456_789] {
            bars.event(ProgressEvent::Progressed {
                item: &item,
                downloaded,
            });
        }
        let written = terminal.0.lock().unwrap();
        let widest = written
            .iter()
            .map(|text| text.chars().count())
            .max()
            .unwrap();
        assert!(widest <= 80, "{written:#?}");
        assert!(
            written
                .iter()
                .any(|text| text.contains("/12345 items, 117.7 MiB of 831.0 MiB"))
        );
    }
}
