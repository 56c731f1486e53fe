//! Errors as text: an error and its causes on one line.

use std::error::Error;
use std::fmt;

/// An error and its causes, on one line.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// An error and its causes as text, on one line.
#[must_use]
pub(crate) fn chain(error: &dyn Error) -> String {
    ErrorChain(error).to_string()
}
