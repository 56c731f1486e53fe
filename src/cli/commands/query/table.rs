//! What a query found, as a table for people, and its one line of summary.

use crate::cli::context::Context;
use crate::cli::output::{self, shown};
use crate::substitute::answer::{Found, LATE, Said};
use crate::substitute::choose;
use crate::substitute::lookup::Resolution;

use super::data;

/// One line for each item: status, sizes, server, item, and why not when not.
pub(super) fn lines<'a>(
    context: &'a Context,
    resolution: &'a Resolution,
) -> impl Iterator<Item = String> + 'a {
    let widest = resolution.servers.iter().map(|server| server.url.len()).max().unwrap_or(0);
    let width = widest.min(SERVER_WIDTH_MAX);
    resolution.items.iter().map(move |found| line(context, resolution, found, width))
}

/// Longer addresses push the item to the right.
const SERVER_WIDTH_MAX: usize = 34;

fn line(context: &Context, resolution: &Resolution, found: &Found, width: usize) -> String {
    let source = found.sources.first();
    let download = source.and_then(|source| choose::smallest(&source.narinfo)?.file_size);
    let nar_size = found.authority.as_ref().map(|authority| authority.narinfo().nar_size());
    let size = |size: Option<u64>| size.map_or("-".to_owned(), output::bytes);
    let server = source.map_or("-", |source| &resolution.servers[source.server].url);
    let path = context.settings.store_dir().display(&found.path);
    let status = found.status.name();
    let (download, nar_size) = (size(download), size(nar_size));
    let server = shown(server);
    let why = why(resolution, found).map_or(String::new(), |why| format!("  ({why})"));
    format!("{status:<9} {download:>10} {nar_size:>10}  {server:<width$}  {path}{why}")
}

/// The most telling answer about an item that is not available.
fn why(resolution: &Resolution, found: &Found) -> Option<String> {
    if found.authority.is_some() {
        return None;
    }
    let telling = |said: &Said| match said {
        Said::Refused(refusal) => Some(refusal.to_string()),
        Said::Unreadable(why) | Said::Failed(why) | Said::Skipped(why) | Said::OtherStore(why) => {
            Some(why.clone())
        }
        Said::Late => Some(LATE.to_owned()),
        Said::Unusable => Some("it names no download that can be used".to_owned()),
        Said::Offline => Some("not in the lookup cache".to_owned()),
        _ => None,
    };
    let all = found.answers.iter().zip(&resolution.servers);
    let mut reasons = all.filter_map(|(answer, server)| Some((telling(&answer.said)?, server)));
    let (reason, server) = reasons.next()?;
    Some(shown(&format!("{}: {reason}", server.url)).into_owned())
}

/// How many, how large, how fast.
pub(super) fn summary(context: &Context, resolution: &Resolution) -> String {
    let summary = data::summary(context, resolution);
    let mut text = format!(
        "{} of {} available, {} to download, {} unpacked",
        summary.available,
        resolution.items.len(),
        output::bytes(summary.download_size),
        output::bytes(summary.nar_size),
    );
    let others = [
        (summary.preparing, "being prepared"),
        (summary.missing, "missing"),
        (summary.refused, "refused"),
        (summary.unknown, "unknown"),
    ];
    for (count, word) in others.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {count} {word}"));
    }
    let (requests, seconds) = (summary.requests, summary.seconds);
    text.push_str(&format!(" ({requests} requests, {seconds:.2} s)"));
    text
}
