//! The store as commands see it that only read it.

use std::io;

use crate::store::{OpenMode, Store, StoreError};

use super::context::Context;
use super::error::CliError;
use super::settings::StoreKind;

impl Context {
    /// The store for reading; `None` when it does not exist.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub(crate) fn store_to_read(&self) -> Result<Option<Store>, CliError> {
        let layout = self.settings.layout.clone();
        match Store::open(layout, OpenMode::ReadOnly, self.store_observer()) {
            Ok(store) => Ok(Some(store)),
            Err(StoreError::NoStore(_)) => Ok(None),
            // A database alone, as from half a backup: nothing of what it records is in place.
            Err(StoreError::Open { source, .. })
                if self.settings.store_kind == StoreKind::Embedded
                    && source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The store for reading, by a command that has nothing to do without one: its directory may be mistyped.
    ///
    /// # Errors
    /// It does not exist or cannot be read.
    pub(crate) fn existing_store(&self) -> Result<Store, CliError> {
        let database = self.settings.layout.database();
        self.store_to_read()?
            .ok_or_else(|| StoreError::NoStore(database.to_owned()).into())
    }
}
