//! The cache-miss report as one page of HTML that needs nothing else: no network, no script.

mod page;
mod template;

pub(super) use page::render;
