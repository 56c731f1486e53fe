//! One way to get a nar.

use url::Url;

use crate::format::compression::Compression;
use crate::format::server_list::ServerIndex;

/// One way to get a nar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DownloadCandidate {
    /// The server.
    pub(crate) server: ServerIndex,
    /// Where.
    pub(crate) url: Url,
    /// How it is compressed.
    pub(crate) compression: Compression,
    /// Bytes to download, when the server says so.
    pub(crate) file_size: Option<u64>,
}
