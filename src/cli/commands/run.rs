//! `subst run`: a program of an item takes the place of this process, with the store at its place.
//!
//! Before that, nothing is changed that the program inherits: no sandbox, limits, umask or signal
//! handlers. One thing is not as if it had been started directly: it inherits a descriptor, of the file of temp
//! roots that keeps the item from the collector.

mod program;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::args::RunArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::item_argument;
use crate::cli::program_error::ProgramError;
use crate::cli::settings::StoreKind;
use crate::cli::start_state;
use crate::format::store_path::StorePath;
use crate::namespace;
use crate::store::keep_for_program;
use crate::substitute::chain;

use program::ProgramChoice;

/// Runs the program that `args` name; does not return if it begins.
///
/// # Errors
/// The item is not in the store, it has no such program, or the store cannot be put at its place.
pub(crate) fn run(context: &Context, args: &RunArgs) -> Result<Exit, CliError> {
    let store_dir = context.settings.store_dir();
    let (item, file) = item_argument::parse_with_file(&args.item, store_dir)?;
    keep(context, &item);
    check_presence(context, &item)?;

    let choice = ProgramChoice {
        directory: Path::new(&store_dir.full_name(&item)).to_owned(),
        item: &item,
        program: args.program.as_deref(),
        file,
    };
    put_in_place(context, &choice)?;

    // Only now do the links of the store lead somewhere.
    let path = choice.choose()?;
    let source = start_state::execute(Command::new(&path).args(&args.arguments));
    Err(ProgramError::Execute { path, source }.into())
}

/// Keeps the item from the collector for as long as the program runs. Where that is not possible, in a store
/// that this user may only read, it runs all the same.
fn keep(context: &Context, item: &StorePath) {
    let (layout, observer) = (&context.settings.layout, context.store_observer());
    if let Err(error) = keep_for_program(layout, item, &observer) {
        let error = chain(&error);
        tracing::debug!(error, "the collector may delete the item while it runs");
    }
}

/// Checks that the item is valid and its tree is there. The store is closed again: the program must not
/// inherit other locks.
fn check_presence(context: &Context, item: &StorePath) -> Result<(), CliError> {
    let store = context.store_to_read()?;
    let is_present = match &store {
        Some(store) => store.is_complete(item)?,
        None => false,
    };
    if is_present {
        return Ok(());
    }

    let settings = &context.settings;
    let is_embedded = settings.store_kind == StoreKind::Embedded;
    let error = ProgramError::NotInStore {
        item: settings.store_dir().full_name(item),
        store: is_embedded.then(|| settings.layout.store().to_owned()),
    };
    Err(error.into())
}

/// Puts the store where its items refer to it, for this process only, unless it is there.
fn put_in_place(context: &Context, choice: &ProgramChoice<'_>) -> Result<(), CliError> {
    let store = context.settings.layout.store();
    let place = Path::new(context.settings.store_dir().as_str());
    if namespace::is_in_place(store, place) {
        return Ok(());
    }

    let directory = working_directory().map_err(CliError::file("find", "the working directory"))?;
    namespace::enter(store, place, &directory).map_err(|source| {
        let error = ProgramError::Namespace {
            store: store.canonicalize().unwrap_or_else(|_| store.to_owned()),
            place: place.to_owned(),
            program: choice.probable_name(&context.settings.layout.item(choice.item)),
            source,
        };
        error.into()
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program has to begin in the same directory"
)]
fn working_directory() -> std::io::Result<PathBuf> {
    std::env::current_dir()
}
