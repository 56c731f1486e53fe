//! Errors as text for people.

use std::error::Error;
use std::fmt;

/// An error and its causes, on one line.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&message(self.0))?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {}", message(cause))?;
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

/// What `error` itself says, without the system's error number, which means nothing to people.
#[must_use]
pub(crate) fn message(error: &(impl fmt::Display + ?Sized)) -> String {
    const NUMBER_START: &str = " (os error ";
    let mut text = error.to_string();
    while let Some(start) = text.find(NUMBER_START) {
        let number = &text[start + NUMBER_START.len()..];
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        if !number[digits..].starts_with(')') {
            break;
        }
        text.replace_range(start..=start + NUMBER_START.len() + digits, "");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_number_of_a_system_error_is_left_out() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(message(&error), "No such file or directory");
        assert_eq!(message("a (os error 1): b (os error 22)"), "a: b");
        assert_eq!(message("a (os error x)"), "a (os error x)");
        assert_eq!(chain(&error), "No such file or directory");
    }
}
