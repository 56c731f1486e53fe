//! How often and how long each server is retried.

use crate::format::server_list::{PerServer, ServerList};
use crate::format::server_url::ServerUrl;
use crate::http::RetryLimits;

use super::origin::{Origin, Setting};
use super::table::SettingsLayer;
use super::value::RetryCount;

/// The limits for each of `servers`: those of the `[[server]]` table with the longest URL that the
/// server lies below, and what it leaves open from the general settings. Options apply to all.
pub(super) fn limits(chosen: &SettingsLayer, servers: &ServerList) -> PerServer<RetryLimits> {
    let general = RetryLimits {
        retries: chosen.retries.as_ref().map_or(u32::MAX, number),
        time: chosen
            .retry_time
            .as_ref()
            .map_or(RetryLimits::default().time, |setting| setting.value),
    };

    let mut own = Vec::new();
    if let Some(Setting { value, .. }) = &chosen.server {
        for table in value {
            let retries = table.retries.filter(|_| !is_option(&chosen.retries));
            let time = table.retry_time.filter(|_| !is_option(&chosen.retry_time));
            let limits = RetryLimits {
                retries: retries.map_or(general.retries, as_limit),
                time: time.map_or(general.time, |time| time.0),
            };
            own.push((&table.url.0, limits));
        }
    }

    let of_server = servers.iter().map(|server| {
        own.iter()
            .filter(|(url, _)| is_below(server, url))
            .max_by_key(|(url, _)| url.base().path().len())
            .map_or(general, |(_, limits)| *limits)
    });
    of_server.collect()
}

fn number(setting: &Setting<RetryCount>) -> u32 {
    as_limit(setting.value)
}

fn as_limit(count: RetryCount) -> u32 {
    u32::try_from(count.0).unwrap_or(u32::MAX)
}

fn is_option<T>(setting: &Option<Setting<T>>) -> bool {
    let origin = setting.as_ref().map(|setting| &setting.origin);
    matches!(origin, Some(Origin::Option(_)))
}

/// Whether `server` is the one at `url`, or lies below it.
fn is_below(server: &ServerUrl, url: &ServerUrl) -> bool {
    let (server, url) = (server.base(), url.base());
    server.origin() == url.origin() && server.path().starts_with(url.path())
}
