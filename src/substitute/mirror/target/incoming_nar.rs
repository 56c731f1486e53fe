//! A nar that is being written to a mirror. A large one for a bucket is sent meanwhile.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use super::error::TargetError;
use super::large::LargeUpload;
use crate::substitute::download::kept_beginning::KeptBeginning;
use crate::substitute::mirror::incoming::IncomingFile;

/// A nar that is being written, from its first byte on. Dropped, it is removed.
pub(crate) struct IncomingNar<'a> {
    file: IncomingFile<'a>,
    upload: Option<LargeUpload<'a>>,
}

impl<'a> IncomingNar<'a> {
    /// The nar in `file`.
    pub(super) fn new(file: IncomingFile<'a>) -> Self {
        Self { file, upload: None }
    }

    /// Has what is written to the file sent by what `start` returns for it.
    pub(super) fn send(mut self, start: impl FnOnce(Arc<File>) -> LargeUpload<'a>) -> Self {
        let (file, _) = self.file.contents();
        self.upload = Some(start(file));
        self
    }

    /// The file, and what has sent it.
    pub(super) fn into_parts(self) -> (IncomingFile<'a>, Option<LargeUpload<'a>>) {
        (self.file, self.upload)
    }

    /// What an earlier run has written, if there is something.
    pub(crate) fn kept(&self) -> Option<KeptBeginning> {
        self.file.kept()
    }

    /// Removes all of its contents; how many bytes were written since it was opened.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn clear(&mut self) -> io::Result<u64> {
        // What was sent may be wrong: then the nar is sent when it is verified.
        self.upload = None;
        self.file.clear()
    }

    /// Why nothing more can be written, if that is because what was written cannot be sent.
    pub(crate) fn take_failure(&mut self) -> Option<TargetError> {
        let failed = self.upload.take_if(|upload| upload.has_failed())?;
        failed.complete().err()
    }

    /// Leaves it for the next run, if it has any contents.
    pub(crate) fn keep(self) {
        self.file.keep();
        if let Some(upload) = self.upload {
            upload.keep();
        }
    }
}

impl Write for IncomingNar<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        if let Some(upload) = &mut self.upload {
            upload.note_written(&bytes[..count]);
            // The rest would be downloaded in vain.
            if upload.has_failed() {
                return Err(io::Error::other("it cannot be sent"));
            }
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
