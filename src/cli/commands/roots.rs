//! `subst roots`: lists the roots that keep items from garbage collection, or removes some.

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::args::RootsArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{bytes, count};
use crate::cli::store_hint::unreadable_root_hint;
use crate::format::error_text::chain;
use crate::store::{RootName, RootReport, RootsReport, remove_root};

/// Lists the roots, or removes those that `args` name.
///
/// # Errors
/// The store cannot be opened, or a root cannot be removed.
pub(crate) fn run(context: &Context, args: &RootsArgs) -> Result<Exit, CliError> {
    if !args.remove.is_empty() {
        return remove(context, &args.remove);
    }

    let listed = context.existing_store()?.roots()?;
    if context.settings.json {
        context.output.json(&report_json(context, &listed))?;
    } else {
        print_roots(context, &listed.roots)?;
    }

    for (link, error) in &listed.unreadable {
        let what = format!("cannot read the root {}", shown_root(context, link));
        let hint = unreadable_root_hint(link);
        context.output.item_error(&what, error, Some(&hint));
    }
    Ok(if listed.unreadable.is_empty() {
        Exit::Done
    } else {
        Exit::Local
    })
}

/// Prints the roots that could be read.
fn print_roots(context: &Context, roots: &[RootReport]) -> std::io::Result<()> {
    let lines = roots.iter().map(|root| line(context, root));
    context.output.lines(lines.map(Cow::Owned))?;
    let dead = roots.iter().filter(|root| root.closure.is_none()).count();
    if dead > 0 {
        let (roots, keep) = match dead {
            1 => ("1 root".to_owned(), "keeps"),
            _ => (format!("{dead} roots"), "keep"),
        };
        context.output.note(&format!(
            "{roots} {keep} nothing: the item is not in the store any more"
        ));
    }
    Ok(())
}

fn report_json(context: &Context, listed: &RootsReport) -> Value {
    let roots = listed.roots.iter().map(|root| as_json(context, root));
    let unreadable = listed
        .unreadable
        .iter()
        .map(|(link, error)| json!({ "link": link.to_string_lossy(), "reason": chain(error) }));
    json!({
        "roots": roots.collect::<Vec<_>>(), "unreadable": unreadable.collect::<Vec<_>>(),
    })
}

fn remove(context: &Context, names: &[RootName]) -> Result<Exit, CliError> {
    let mut removed = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        let links = remove_root(&context.settings.layout, name)?;
        if links.is_empty() {
            missing.push(name.as_str());
        }
        removed.extend(links);
    }
    if removed.is_empty() {
        context.existing_store()?;
    }

    if context.settings.json {
        context
            .output
            .json(&json!({ "removed": removed, "missing": missing }))?;
    } else if !removed.is_empty() {
        let roots = count(removed.len() as u64, "root", "roots");
        context.output.note(&format!("{roots} removed"));
    }
    for name in &missing {
        context.output.warn(&format!(
            "there is no root {name} made by `subst fetch --gc-root`"
        ));
    }
    Ok(if missing.is_empty() {
        Exit::Done
    } else {
        Exit::NotAvailable
    })
}

fn line(context: &Context, root: &RootReport) -> String {
    let (state, size) = match root.closure {
        Some(closure) => ("live", bytes(closure.nar_bytes)),
        None => ("dead", "-".to_owned()),
    };
    let name = shown_root(context, &root.link);
    let item = context.settings.store_dir().full_name(&root.item);
    format!("{state} {size:>10}  {name}  {item}")
}

fn as_json(context: &Context, root: &RootReport) -> Value {
    json!({
        "name": shown_root(context, &root.link), "link": root.link.to_string_lossy(),
        "item": context.settings.store_dir().full_name(&root.item),
        "dead": root.closure.is_none(),
        "closure_items": root.closure.map(|closure| closure.items),
        "closure_nar_size": root.closure.map(|closure| closure.nar_bytes),
    })
}

/// The name of a root that `subst fetch --gc-root` has made; the link of any other one.
pub(super) fn shown_root(context: &Context, link: &Path) -> String {
    let own = context.settings.layout.named_roots_dir();
    let name = link.strip_prefix(own).unwrap_or(link);
    name.to_string_lossy().into_owned()
}
