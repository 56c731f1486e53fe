//! Items that could not be fetched or repaired, as messages: those with the same cause together.

use crate::cli::advice::Advice;
use crate::cli::context::Context;
use crate::cli::item_hint::item_hint;
use crate::cli::output::{Messages, Verbosity, count};
use crate::format::store_path::StorePath;
use crate::substitute::install::ItemError;

/// Items of a message that are named; the others are counted.
const NAMED_ITEMS_MAX: usize = 10;

/// An item for which something could not be done, and why.
pub(crate) type FailedItem = (StorePath, ItemError);

/// Prints each cause with its items, which `verb` could not be done to, such as `fetch`. With `--verbose`, and as events, each item has a message of its
/// own. The user has named `requested`.
pub(crate) fn print<'a>(
    context: &Context,
    verb: &str,
    failed: impl Iterator<Item = &'a FailedItem>,
    requested: &[StorePath],
) {
    let advice = context.settings.advice();
    let is_grouped = context.output.messages() == Messages::Text
        && context.settings.verbosity < Verbosity::Verbose;

    let mut groups: Vec<(String, Vec<&FailedItem>)> = Vec::new();
    for item in failed {
        let cause = item.1.common_cause();
        let known = groups
            .iter_mut()
            .find(|(other, _)| is_grouped && *other == cause);
        match known {
            Some((_, items)) => items.push(item),
            None => groups.push((cause, vec![item])),
        }
    }

    for (_, mut items) in groups {
        items.sort_unstable_by_key(|(path, _)| (path.name(), path.base()));
        print_group(context, verb, &items, requested, &advice);
    }
}

fn print_group(
    context: &Context,
    verb: &str,
    items: &[&FailedItem],
    requested: &[StorePath],
    advice: &Advice,
) {
    let store_dir = context.settings.store_dir();
    let names = items.iter().map(|(path, _)| store_dir.full_name(path));
    let [(_, error), ..] = items else { return };
    let what = match items.len() {
        1 => format!("cannot {verb} {}", names.collect::<String>()),
        number => {
            let mut what = format!("cannot {verb} {number} items");
            for name in names.take(NAMED_ITEMS_MAX) {
                what.push_str(&format!("\n    {name}"));
            }
            if number > NAMED_ITEMS_MAX {
                let others = count(number - NAMED_ITEMS_MAX, "other", "others");
                what.push_str(&format!("\n    and {others} (--verbose names all)"));
            }
            what
        }
    };
    let hint = match items {
        [(path, ItemError::NotAvailable { .. })] if path.is_derivation() => {
            Some(advice.derivation(&store_dir.full_name(path)))
        }
        _ => {
            let is_requested = items.iter().any(|(path, _)| requested.contains(path));
            item_hint(error, advice, is_requested)
        }
    };
    context.output.item_error(&what, error, hint.as_deref());
}
