//! Prints a narinfo from its parsed fields, in the order of the dialect's own programs. Unknown and
//! repeated fields and all oddities of spelling are lost; a Guix signature stays valid only if the
//! text was in this order already.

use std::fmt;

use super::download::Download;
use super::fields::Field;
use super::info::NarInfo;
use super::quirks::Quirks;
use crate::format::compression::Compression;
use crate::format::store_path::Dialect;

impl fmt::Display for NarInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dialect {
            Dialect::Guix => self.write_guix(f),
            Dialect::Nix => self.write_nix(f),
        }
    }
}

impl NarInfo {
    fn write_guix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_scalar(f, Field::StorePath)?;
        self.write_content(f)?;
        for field in [Field::System, Field::Deriver, Field::Ca, Field::Signature] {
            self.write_scalar(f, field)?;
        }

        self.write_nix_signatures(f)?;
        self.downloads
            .iter()
            .try_for_each(|download| self.write_download(f, download))
    }

    fn write_nix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_scalar(f, Field::StorePath)?;
        self.downloads
            .iter()
            .try_for_each(|download| self.write_download(f, download))?;
        self.write_content(f)?;

        for field in [Field::Deriver, Field::System, Field::Signature] {
            self.write_scalar(f, field)?;
        }

        self.write_nix_signatures(f)?;
        self.write_scalar(f, Field::Ca)
    }

    fn write_content(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_field(f, Field::NarHash, self.nar_hash.in_form(self.nar_hash_form))?;
        write_field(f, Field::NarSize, self.nar_size)?;
        if self.quirks.contains(Quirks::NO_REFERENCES_LINE) {
            return Ok(());
        }

        write!(f, "{}:", Field::References.name())?;
        if self.references_len == 0 {
            f.write_str(" ")?;
        }
        self.references()
            .try_for_each(|reference| write!(f, " {reference}"))?;

        f.write_str("\n")
    }

    fn write_download(&self, f: &mut fmt::Formatter<'_>, download: &Download) -> fmt::Result {
        write_field(f, Field::Url, self.download_url(download))?;
        match &download.compression {
            Ok(Compression::Bzip2) if self.quirks.contains(Quirks::DEFAULTED_COMPRESSION) => {}
            Ok(method) => write_field(f, Field::Compression, method)?,
            Err(unknown) if unknown.0.is_empty() => {}
            Err(unknown) => write_field(f, Field::Compression, &unknown.0)?,
        }
        if let Some(hash) = &download.file_hash {
            write_field(f, Field::FileHash, hash.in_form(download.file_hash_form))?;
        }

        download
            .file_size
            .map_or(Ok(()), |size| write_field(f, Field::FileSize, size))
    }

    fn write_nix_signatures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.nix_signatures()
            .try_for_each(|signature| write_field(f, Field::Sig, signature))
    }

    fn write_scalar(&self, f: &mut fmt::Formatter<'_>, field: Field) -> fmt::Result {
        self.scalar(field)
            .map_or(Ok(()), |value| write_field(f, field, value))
    }
}

fn write_field(f: &mut fmt::Formatter<'_>, field: Field, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{}: {value}", field.name())
}
