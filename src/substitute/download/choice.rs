//! Which of a narinfo's downloads to take. Pure: what was measured comes in as [`MeasuredRates`].
//!
//! Two things take time: the line (`FileSize` over its rate) and the decoder (`NarSize` over the
//! method's rate). They work at the same time, so the longer one counts. Of one server's downloads the one whose method
//! is planned for the item comes first ([`plan`](super::plan) chooses for all items together), then
//! those with the smallest such time, in case it fails. Servers keep the user's order.

use url::Url;

use crate::format::compression::Compression;
use crate::format::narinfo::{Download, NarOffer};
use crate::format::server_list::ServerList;
use crate::http::whole_bytes;
use crate::substitute::download::candidate::DownloadCandidate;
use crate::substitute::download::rates::{MeasuredRates, density_rank};
use crate::substitute::item_lookup::NarSource;
use crate::substitute::network::Network;
use crate::substitute::outcome::Unusable;
use crate::substitute::progress::DownloadChoice;

/// The ways to get the nar that `sources` describe, best first; in each source, those of the
/// `planned` method first.
#[must_use]
pub(crate) fn candidates(
    sources: &[NarSource],
    servers: &ServerList,
    rates: &MeasuredRates,
    planned: Option<Compression>,
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
        own.sort_by_key(|candidate| planned.is_some_and(|method| method != candidate.compression));
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
        link: whole_bytes(rates.line(server).bytes_per_second),
        link_is_measured: rates.line(server).is_measured,
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
            (size, density_rank(*method))
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::format::server_list::{PerServer, ServerIndex};
    use crate::format::server_url::ServerUrl;
    use crate::http::LineRate;
    use crate::substitute::download::rates::WorkTime;

    /// Rates with a line of `bytes_per_second` to the first server.
    fn measured_line(bytes_per_second: f64) -> MeasuredRates {
        let rate = LineRate {
            bytes_per_second,
            is_measured: true,
        };
        MeasuredRates::default().with_lines(HashMap::from([(ServerIndex::FIRST, rate)]))
    }

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
        let rates = measured_line(100e3);
        assert!(rates.seconds(&lzip, 400) < rates.seconds(&zstd, 400));
        let rates = measured_line(1e9);
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

        let rates = MeasuredRates::default();
        let alone = [zstd.clone(), elsewhere.clone()];
        assert_eq!(
            explain(&alone, 400, &rates),
            None,
            "another server is no alternative"
        );
        let both = [lzip, zstd, elsewhere];
        assert!(!explain(&both, 400, &rates).unwrap().link_is_measured);
        let rates = measured_line(100e3);
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
        let mut rates = measured_line(2e6);
        assert!(rates.seconds(&zstd, 100_000) < rates.seconds(&none, 100_000));
        let slow = WorkTime {
            processor: Duration::from_secs(100),
            wall: Duration::from_secs(100),
        };
        rates.decoder_measured(Compression::Zstd, 10_000_000, slow);
        assert!(rates.seconds(&none, 100_000) < rates.seconds(&zstd, 100_000));
    }

    #[test]
    fn the_planned_method_comes_first_and_the_others_by_their_time() {
        let text = format!(
            "{} 1000000\nnar/lzip\nlzip\n90\nnar/zstd\nzstd\n100\nnar/gzip\ngzip\n110\n",
            "0".repeat(64)
        );
        let source = NarSource {
            server: ServerIndex::FIRST,
            offer: Arc::new(NarOffer::parse(&text).unwrap()),
        };
        let servers = PerServer::from(vec![ServerUrl::parse("http://h").unwrap()]).into();
        let rates = measured_line(100.0);
        for (planned, expected) in [
            (None, ["lzip", "zstd", "gzip"]),
            (Some(Compression::Gzip), ["gzip", "lzip", "zstd"]),
            (Some(Compression::Bzip2), ["lzip", "zstd", "gzip"]),
        ] {
            let all = candidates(std::slice::from_ref(&source), &servers, &rates, planned);
            let methods: Vec<_> = all.iter().map(|it| it.compression.name()).collect();
            assert_eq!(methods, expected);
        }
    }
}
