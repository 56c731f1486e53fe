//! Verifies the signature of a narinfo with a public key, as `guix archive --authorize` takes it:
//! `verify_narinfo STORE_PATH NARINFO_FILE KEY_FILE`
//!
//! Prints the hash and the size that the key's owner signed. Ends with an error if the narinfo is of
//! another item, or is not signed by that key.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use subst::format::narinfo::NarInfo;
use subst::format::store_path::{StoreDir, StorePath};
use subst::trust::acl::{Acl, AuthorizedKeys};
use subst::trust::guix::PublicKey;
use subst::trust::verdict::authorize;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [item, narinfo, key] = &arguments[..] else {
        return Err("usage: verify_narinfo STORE_PATH NARINFO_FILE KEY_FILE".into());
    };

    let store_dir = StoreDir::parse(StoreDir::GUIX)?;
    let name = Path::new(item)
        .file_name()
        .ok_or("STORE_PATH has no name")?;
    let item = StorePath::parse(name.to_str().ok_or("STORE_PATH is not text")?)?;
    let narinfo = Arc::new(NarInfo::parse(
        std::fs::read_to_string(narinfo)?,
        &store_dir,
    )?);

    let mut acl = Acl::default();
    acl.authorize(PublicKey::parse(&std::fs::read(key)?)?);
    let authorized = authorize(
        narinfo,
        item.as_ref(),
        &AuthorizedKeys::Guix(acl),
        &store_dir,
    )?;

    let signed = authorized.narinfo();
    writeln!(
        std::io::stdout(),
        "{} {}",
        signed.nar_hash(),
        signed.nar_size()
    )?;
    Ok(())
}
