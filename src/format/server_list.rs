//! The servers of a run and their places in the user's list.
//!
//! A server is named by its [`ServerIndex`], and what is kept for each server is a [`PerServer`],
//! which takes no other index. Neither checks that both are of the same list: a run has one.

use std::ops::{Deref, DerefMut, Index, IndexMut};
use std::sync::Arc;

use super::server_url::ServerUrl;

/// The place of a server in the list of a run; smaller ones are preferred by the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServerIndex(u32);

/// The servers of a run in the user's order; clones share one list.
pub(crate) type ServerList = Arc<PerServer<ServerUrl>>;

/// One value for each server of a run, in the user's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PerServer<T>(Vec<T>);

impl ServerIndex {
    /// The server that the user prefers to all others.
    pub(crate) const FIRST: Self = Self(0);

    /// The server at `place`, counted from 0.
    #[cfg(test)]
    pub(crate) const fn at(place: u32) -> Self {
        Self(place)
    }
}

impl<T> PerServer<T> {
    /// The places of all servers.
    pub(crate) fn indices(&self) -> impl Iterator<Item = ServerIndex> + use<T> {
        let count = u32::try_from(self.0.len()).expect("a run has fewer than 2^32 servers");
        (0..count).map(ServerIndex)
    }

    /// All values, each with the place of its server.
    pub(crate) fn enumerated(&self) -> impl Iterator<Item = (ServerIndex, &T)> {
        self.indices().zip(&self.0)
    }
}

impl<T> Default for PerServer<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> From<Vec<T>> for PerServer<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<T> FromIterator<T> for PerServer<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T> IntoIterator for PerServer<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a PerServer<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T> Deref for PerServer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for PerServer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T> Index<ServerIndex> for PerServer<T> {
    type Output = T;

    fn index(&self, server: ServerIndex) -> &T {
        &self.0[server.0 as usize]
    }
}

impl<T> IndexMut<ServerIndex> for PerServer<T> {
    fn index_mut(&mut self, server: ServerIndex) -> &mut T {
        &mut self.0[server.0 as usize]
    }
}
