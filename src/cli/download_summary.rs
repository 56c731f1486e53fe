//! The planned downloads of a fetch, as text and as JSON.

use serde_json::{Map, Value, json};

use crate::http::whole_bytes;
use crate::substitute::download::plan::PlanLimit;
use crate::substitute::progress::DownloadSummary;

use super::output;

/// Such as `174.5 MiB lzip, 2.2 MiB zstd; about 15.4 s at 11.9 MiB/s, limited by the network`.
pub(crate) fn text(summary: &DownloadSummary) -> String {
    let methods: Vec<String> = summary
        .bytes_by_method
        .iter()
        .map(|(method, size)| format!("{} {method}", output::bytes(*size)))
        .collect();
    let rate = output::bytes(whole_bytes(summary.line.bytes_per_second));
    let assumed = match summary.line.is_measured {
        true => "",
        false => " (assumed)",
    };

    format!(
        "{}; about {} at {rate}/s{assumed}, limited by {}",
        methods.join(", "),
        output::estimate(summary.seconds),
        match summary.limit {
            PlanLimit::Line => "the network",
            PlanLimit::Processor => "the processor",
            PlanLimit::SlowestItem => "decoding the largest item",
        }
    )
}

/// The same for scripts, without a name for the object.
pub(crate) fn json(summary: &DownloadSummary) -> Value {
    let methods = summary.bytes_by_method.iter();
    let bytes: Map<String, Value> = methods
        .map(|(method, size)| (method.name().to_owned(), json!(size)))
        .collect();
    json!({
        "bytes_by_method": bytes,
        "expected_seconds": summary.seconds,
        "limit": match summary.limit {
            PlanLimit::Line => "network",
            PlanLimit::Processor => "processor",
            PlanLimit::SlowestItem => "slowest-item",
        },
        "bytes_per_second": whole_bytes(summary.line.bytes_per_second),
        "is_measured": summary.line.is_measured,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::compression::Compression;
    use crate::http::LineRate;

    #[test]
    fn a_plan_names_methods_time_and_limit() {
        let summary = DownloadSummary {
            bytes_by_method: vec![(Compression::Lzip, 3 << 20), (Compression::Zstd, 1 << 10)],
            seconds: 15.42,
            limit: PlanLimit::Line,
            line: LineRate {
                bytes_per_second: f64::from(2 << 20),
                is_measured: false,
            },
        };
        assert_eq!(
            text(&summary),
            "3.0 MiB lzip, 1.0 KiB zstd; about 15.4 s at 2.0 MiB/s (assumed), limited by the network"
        );
        let object = json(&summary);
        assert_eq!(object["bytes_by_method"]["lzip"], 3 << 20);
        assert_eq!(object["limit"], "network");
        assert_eq!(object["bytes_per_second"], 2 << 20);
    }
}
