//! The keys and files that nix.conf names, found as Nix finds them.
//!
//! [`places`] has the files and the variable that are read, [`reader`] their syntax.

mod places;
mod reader;

pub(crate) use places::NixConfPlaces;
pub(crate) use reader::{NixConf, NixConfFile, read};
