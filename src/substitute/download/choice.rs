//! Which of a narinfo's downloads to take. Pure: what was measured comes in as [`MeasuredRates`].
//!
//! Two things take time: the link (`FileSize` over the link's rate) and the decoder (`NarSize` over
//! the method's rate). They work at the same time, so the longer one counts, and a part of the
//! other: they never overlap wholly, and what the decoder takes is missing elsewhere. The
//! download with the smallest such time comes first; the others follow, in case it fails. Servers
//! keep the user's order.

use std::collections::HashMap;

use url::Url;

use crate::format::compression::Compression;
use crate::format::narinfo::{Download, NarOffer};
use crate::format::server_list::{ServerIndex, ServerList};
use crate::substitute::item_lookup::NarSource;
use crate::substitute::network::Network;
use crate::substitute::outcome::Unusable;
use crate::substitute::progress::DownloadChoice;

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

/// What was measured in this run.
#[derive(Debug, Clone, Default)]
pub(crate) struct MeasuredRates {
    links: HashMap<ServerIndex, Rate>,
    decoders: HashMap<Compression, Rate>,
}

/// Bytes and the seconds they took, of late: each new observation lets older ones fade by as
/// many bytes as it has.
#[derive(Debug, Clone, Copy)]
struct Rate {
    bytes: f64,
    seconds: f64,
}

impl Rate {
    /// Begins with an assumption, which counts as little as [`ASSUMED_BYTES`].
    fn assumed(bytes_per_second: f64) -> Self {
        Self {
            bytes: ASSUMED_BYTES,
            seconds: ASSUMED_BYTES / bytes_per_second,
        }
    }

    fn note(&mut self, bytes: u64, seconds: f64) {
        let kept = REMEMBERED_BYTES / (REMEMBERED_BYTES + bytes as f64);
        self.bytes = self.bytes * kept + bytes as f64;
        self.seconds = self.seconds * kept + seconds;
    }

    fn bytes_per_second(self) -> f64 {
        self.bytes / self.seconds.max(SHORTEST_SECONDS)
    }
}

/// How much an assumption weighs against what is measured.
const ASSUMED_BYTES: f64 = 1e6;
/// How far back measurements count.
const REMEMBERED_BYTES: f64 = 64e6;
/// Shorter times are not measurable.
const SHORTEST_SECONDS: f64 = 1e-6;

impl MeasuredRates {
    /// Notes how fast a nar came in: `bytes` while the decoder waited `seconds` for them.
    pub(crate) fn link_measured(&mut self, server: ServerIndex, bytes: u64, seconds: f64) {
        let link = self
            .links
            .entry(server)
            .or_insert(Rate::assumed(ASSUMED_LINK));
        link.note(bytes, seconds);
    }

    /// Notes how fast a nar was decoded: `bytes` came out in `seconds` of work.
    pub(crate) fn decoder_measured(&mut self, method: Compression, bytes: u64, seconds: f64) {
        let assumed = Rate::assumed(assumed(method).decoder);
        self.decoders
            .entry(method)
            .or_insert(assumed)
            .note(bytes, seconds);
    }

    /// Bytes per second from `server`.
    #[must_use]
    pub(crate) fn link(&self, server: ServerIndex) -> f64 {
        self.links
            .get(&server)
            .map_or(ASSUMED_LINK, |rate| rate.bytes_per_second())
    }

    /// Bytes of nar per second out of the decoder for `method`. What was not measured is
    /// assumed to suffer from a busy machine as much as what was.
    #[must_use]
    pub(crate) fn decoder(&self, method: Compression) -> f64 {
        if let Some(rate) = self.decoders.get(&method) {
            return rate.bytes_per_second();
        }
        let slowdowns = self
            .decoders
            .iter()
            .map(|(known, rate)| rate.bytes_per_second() / assumed(*known).decoder);
        assumed(method).decoder * slowdowns.fold(1.0, f64::min)
    }

    /// How long `candidate` would take, in seconds.
    #[must_use]
    pub(crate) fn seconds(&self, candidate: &DownloadCandidate, nar_size: u64) -> f64 {
        let size = candidate.file_size.unwrap_or_else(|| {
            let share = assumed(candidate.compression).share;
            as_size(nar_size as f64 * share)
        });
        let link = size as f64 / self.link(candidate.server);
        let decoder = nar_size as f64 / self.decoder(candidate.compression);
        link.max(decoder) + NOT_OVERLAPPED * link.min(decoder)
    }
}

/// The ways to get the nar that `sources` describe, best first.
#[must_use]
pub(crate) fn candidates(
    sources: &[NarSource],
    servers: &ServerList,
    rates: &MeasuredRates,
) -> Vec<DownloadCandidate> {
    let mut all = Vec::new();
    for source in sources {
        let mut own: Vec<DownloadCandidate> = source
            .offer
            .downloads()
            .iter()
            .filter_map(|download| candidate(source, servers, download))
            .collect();
        let nar_size = source.offer.nar_size();
        own.sort_by(|a, b| {
            rates
                .seconds(a, nar_size)
                .total_cmp(&rates.seconds(b, nar_size))
        });
        all.extend(own);
    }
    all
}

/// Keeps those of `candidates` that `network` allows to be downloaded.
///
/// # Errors
/// There are some, but none is allowed: the first one.
pub(crate) fn retain_reachable(
    candidates: &mut Vec<DownloadCandidate>,
    network: &Network,
) -> Result<(), Url> {
    let first = candidates.first().map(|candidate| candidate.url.clone());
    candidates.retain(|candidate| network.reaches(&candidate.url));
    match first {
        Some(url) if candidates.is_empty() => Err(url),
        _ => Ok(()),
    }
}

/// What was expected of the downloads of the first of `ranked`'s server; `None` when there was
/// no choice.
#[must_use]
pub(crate) fn explain(
    ranked: &[DownloadCandidate],
    nar_size: u64,
    rates: &MeasuredRates,
) -> Option<DownloadChoice> {
    let server = ranked.first()?.server;
    let same = ranked
        .iter()
        .take_while(|candidate| candidate.server == server);
    let expected: Vec<_> = same
        .map(|candidate| (candidate.compression, rates.seconds(candidate, nar_size)))
        .collect();
    (expected.len() > 1).then(|| DownloadChoice {
        link: as_size(rates.link(server)),
        link_is_measured: rates.links.contains_key(&server),
        expected,
    })
}

/// Checks that a source names a download that can be used: a known compression method, at an
/// address that its server may point to.
///
/// # Errors
/// It names none, and why.
pub(crate) fn check_usable(source: &NarSource, servers: &ServerList) -> Result<(), Unusable> {
    let downloads = source.offer.downloads();
    if downloads
        .iter()
        .any(|download| candidate(source, servers, download).is_some())
    {
        return Ok(());
    }

    let unknown = downloads
        .iter()
        .filter_map(|download| download.compression.as_ref().err());
    let mut names: Vec<String> = unknown.map(|unknown| unknown.0.clone()).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    Err(if downloads.is_empty() {
        Unusable::NoDownload
    } else if !names.is_empty() {
        names.truncate(NAMED_METHODS);
        Unusable::Compression(names)
    } else if downloads
        .iter()
        .any(|download| download.compression.is_ok())
    {
        Unusable::Url
    } else {
        Unusable::NoCompression
    })
}

/// At most this many unknown compression methods are named.
const NAMED_METHODS: usize = 4;

/// What is announced before anything was measured: the first source's smallest download.
#[must_use]
pub(crate) fn announced(sources: &[NarSource]) -> Option<(&NarSource, &Download)> {
    let source = sources.first()?;
    Some((source, smallest(&source.offer)?))
}

/// The download with the fewest bytes: the one that the stock client announces before it has
/// measured anything. Unknown sizes come last, better compression first.
#[must_use]
pub(crate) fn smallest(offer: &NarOffer) -> Option<&Download> {
    offer
        .downloads()
        .iter()
        .filter_map(|download| Some((download, *download.compression.as_ref().ok()?)))
        .min_by_key(|(download, method)| {
            let size = download.file_size.unwrap_or(u64::MAX);
            (size, assumed(*method).density_rank)
        })
        .map(|(download, _)| download)
}

fn candidate(
    source: &NarSource,
    servers: &ServerList,
    download: &Download,
) -> Option<DownloadCandidate> {
    let compression = *download.compression.as_ref().ok()?;
    let url = servers[source.server]
        .nar_url(source.offer.download_url(download))
        .ok()?;
    Some(DownloadCandidate {
        server: source.server,
        url,
        compression,
        file_size: download.file_size,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate"
)]
fn as_size(bytes: f64) -> u64 {
    bytes as u64
}

/// The part of the shorter of the two times that counts as well.
const NOT_OVERLAPPED: f64 = 0.25;

/// Before anything was measured: a good line, 30 MB/s.
const ASSUMED_LINK: f64 = 30e6;

/// What is assumed of a compression method before anything was measured.
struct AssumedMethod {
    /// Bytes of nar per second and core, as measured with the decoders used here; estimated for br
    /// and lz4.
    decoder: f64,
    /// How much is left of a nar, typically, when the server does not say.
    share: f64,
    /// Orders downloads of unknown sizes in [`smallest`], the densest method first.
    density_rank: u8,
}

const fn assumed(method: Compression) -> AssumedMethod {
    let (decoder, share, density_rank) = match method {
        Compression::None => (5e9, 1.0, 3),
        Compression::Lz4 => (1.5e9, 0.45, 1),
        Compression::Zstd => (800e6, 0.32, 1),
        Compression::Gzip => (360e6, 0.36, 2),
        Compression::Brotli => (200e6, 0.28, 1),
        Compression::Lzip => (85e6, 0.28, 0),
        Compression::Xz => (85e6, 0.28, 1),
        Compression::Bzip2 => (30e6, 0.32, 1),
    };
    AssumedMethod {
        decoder,
        share,
        density_rank,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(compression: Compression, file_size: Option<u64>) -> DownloadCandidate {
        let url = Url::parse("http://h/nar").unwrap();
        DownloadCandidate {
            server: ServerIndex::FIRST,
            url,
            compression,
            file_size,
        }
    }

    #[test]
    fn a_slow_link_wants_few_bytes_and_a_fast_one_a_fast_decoder() {
        let zstd = candidate(Compression::Zstd, Some(110));
        let lzip = candidate(Compression::Lzip, Some(100));
        let mut rates = MeasuredRates::default();
        rates.link_measured(ServerIndex::FIRST, 10_000_000, 100.0);
        assert!(rates.seconds(&lzip, 400) < rates.seconds(&zstd, 400));
        let mut rates = MeasuredRates::default();
        rates.link_measured(ServerIndex::FIRST, 1_000_000_000, 1.0);
        assert!(rates.seconds(&zstd, 400) < rates.seconds(&lzip, 400));
    }

    #[test]
    fn nearly_as_fast_with_far_less_work_is_better() {
        let zstd = candidate(Compression::Zstd, Some(2_250_000));
        let lzip = candidate(Compression::Lzip, Some(1_900_000));
        let rates = MeasuredRates::default();
        assert!(rates.seconds(&zstd, 5_300_000) < rates.seconds(&lzip, 5_300_000));
    }

    #[test]
    fn a_choice_is_explained_by_what_was_expected_of_each() {
        let zstd = candidate(Compression::Zstd, Some(110));
        let lzip = candidate(Compression::Lzip, Some(100));
        let elsewhere = DownloadCandidate {
            server: ServerIndex::at(1),
            ..zstd.clone()
        };

        let mut rates = MeasuredRates::default();
        let alone = [zstd.clone(), elsewhere.clone()];
        assert_eq!(
            explain(&alone, 400, &rates),
            None,
            "another server is no alternative"
        );
        let both = [lzip, zstd, elsewhere];
        assert!(!explain(&both, 400, &rates).unwrap().link_is_measured);
        rates.link_measured(ServerIndex::FIRST, 10_000_000, 100.0);
        let choice = explain(&both, 400, &rates).unwrap();
        assert!(choice.link_is_measured && choice.link < 200_000);
        let methods: Vec<_> = choice.expected.iter().map(|(method, _)| *method).collect();
        assert_eq!(methods, [Compression::Lzip, Compression::Zstd]);
        assert!(choice.expected[0].1 < choice.expected[1].1);
    }

    #[test]
    fn a_slow_decoder_is_noticed() {
        let zstd = candidate(Compression::Zstd, Some(30_000));
        let none = candidate(Compression::None, Some(100_000));
        let mut rates = MeasuredRates::default();
        rates.link_measured(ServerIndex::FIRST, 100_000_000, 50.0);
        assert!(rates.seconds(&zstd, 100_000) < rates.seconds(&none, 100_000));
        rates.decoder_measured(Compression::Zstd, 10_000_000, 100.0);
        assert!(rates.seconds(&none, 100_000) < rates.seconds(&zstd, 100_000));
    }

    #[test]
    fn a_busy_machine_slows_what_was_not_measured_as_well() {
        let mut rates = MeasuredRates::default();
        for _ in 0..100 {
            rates.decoder_measured(Compression::Zstd, 10_000_000, 0.1);
        }
        assert!(rates.decoder(Compression::Zstd) < 110e6);
        assert!(rates.decoder(Compression::Lzip) < 15e6);
    }

    #[test]
    fn small_nars_tell_little_about_a_link() {
        let mut rates = MeasuredRates::default();
        for _ in 0..20 {
            rates.link_measured(ServerIndex::FIRST, 100, 0.0001);
        }
        assert!(rates.link(ServerIndex::FIRST) > ASSUMED_LINK / 2.0);
    }
}
