//! Where in its text a field of a narinfo is.

/// A piece of the text. Two times four bytes, since a narinfo has at most [`super::MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self {
            start: Self::offset(start),
            end: Self::offset(end),
        }
    }

    pub(super) fn offset(offset: usize) -> u32 {
        u32::try_from(offset).expect("a narinfo is at most MAX_BYTES long")
    }

    pub(super) fn of(self, text: &str) -> &str {
        &text[self.start as usize..self.end as usize]
    }

    pub(super) fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    pub(super) fn end(self) -> usize {
        self.end as usize
    }
}
