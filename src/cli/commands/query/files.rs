//! The files that a query writes besides its output.

use std::path::PathBuf;

use crate::cli::args::QueryArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::output_file::OutputFile;

use super::report::CacheMissReport;
use super::view::QuerySummary;
use super::{html, metrics};

/// The files that the options name.
pub(super) struct QueryFiles {
    html: Option<OutputFile>,
    metrics: Option<OutputFile>,
}

impl QueryFiles {
    /// Opens their directories.
    ///
    /// # Errors
    /// Those of [`OutputFile::open`].
    pub(super) fn open(args: &QueryArgs) -> Result<Self, CliError> {
        let open = |path: &Option<_>| path.as_deref().map(OutputFile::open).transpose();
        Ok(Self {
            html: open(&args.html)?,
            metrics: open(&args.metrics)?,
        })
    }

    /// The directories that are written to.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let files = self.html.iter().chain(&self.metrics);
        files.map(OutputFile::directory).collect()
    }

    /// Whether nothing is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.html.is_none() && self.metrics.is_none()
    }

    /// Writes all of them.
    ///
    /// # Errors
    /// Those of [`OutputFile::write`].
    pub(super) fn write(
        &self,
        context: &Context,
        report: &CacheMissReport,
        summary: &QuerySummary,
    ) -> Result<(), CliError> {
        let now = context.clock.unix_seconds();
        if let Some(file) = &self.html {
            let store_dir = context.settings.store_dir();
            file.write(&html::render(report, summary, store_dir, now))?;
        }
        if let Some(file) = &self.metrics {
            file.write(&metrics::render(report, summary, now))?;
        }
        Ok(())
    }
}
