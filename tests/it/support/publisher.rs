//! A server of our own making: a directory of items signed with a key that is thrown away. Two of
//! them can publish different builds of one item.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::Connection;
use sha2::{Digest as _, Sha256};
use subst::format::base32;
use subst::format::nar::NarWriter;
use subst::format::sexp::Sexp;
use subst::trust::guix::PublicKey;
use subst::trust::guix::signing::SigningKey;

use super::Sandbox;

/// The directory of a server and the key that it signs with.
pub(crate) struct Publisher {
    pub(crate) dir: PathBuf,
    key: SigningKey,
}

impl Publisher {
    /// A publisher in the directory `name` of `sandbox`, with a key that follows from `seed`.
    pub(crate) fn new(sandbox: &Sandbox, name: &str, seed: u8) -> Self {
        let dir = sandbox.path(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("nix-cache-info"), "StoreDir: /gnu/store\n").unwrap();
        Self {
            dir,
            key: SigningKey::from_bytes([seed; 32]),
        }
    }

    /// Makes `sandbox` trust these publishers and no others.
    pub(crate) fn trust(sandbox: &Sandbox, publishers: &[&Self]) {
        let entries = publishers
            .iter()
            .map(|publisher| format!("(entry {} (tag (guix import)))", publisher.key.public_key()));
        let acl = format!("(acl {})", entries.collect::<String>());
        std::fs::write(sandbox.path("acl"), acl).unwrap();
    }

    /// The first digits of the key, as settings name it and messages show it.
    pub(crate) fn key_name(&self) -> String {
        let key = PublicKey::from_sexp(self.key.public_key().clone()).unwrap();
        key.short_name().to_owned()
    }

    /// The line with this publisher's signature of `text`.
    pub(crate) fn signature_line(&self, text: &str) -> String {
        self.key.signature_line(text, "test")
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.dir.display())
    }

    /// Publishes `nar` as the item `digit` repeated, and says that it has `size` bytes;
    /// `references` are base names.
    pub(crate) fn publish(&self, digit: char, nar: &[u8], size: u64, references: &str) -> String {
        let downloads = format!("URL: {digit}.nar\nCompression: none\n");
        std::fs::write(self.nar(digit), nar).unwrap();
        self.describe(digit, nar, size, references, &downloads)
    }

    /// Publishes a file with these `contents`.
    pub(crate) fn publish_file(&self, digit: char, contents: &str, references: &str) -> String {
        let nar = file_nar(contents.as_bytes());
        self.publish(digit, &nar, nar.len() as u64, references)
    }

    /// Writes a narinfo for `nar` with these `downloads`.
    pub(crate) fn describe(
        &self,
        digit: char,
        nar: &[u8],
        size: u64,
        references: &str,
        downloads: &str,
    ) -> String {
        self.describe_as(&name(digit), nar, size, references, downloads)
    }

    /// The same for the item with this base name.
    pub(crate) fn describe_as(
        &self,
        name: &str,
        nar: &[u8],
        size: u64,
        references: &str,
        downloads: &str,
    ) -> String {
        let path = format!("/gnu/store/{name}");
        let hash = base32::encode(&Sha256::digest(nar));
        let text = format!(
            "StorePath: {path}\nNarHash: sha256:{hash}\nNarSize: {size}\nReferences: {references}\n"
        );
        let signature = self.key.signature_line(&text, "test");
        let file = self.dir.join(format!("{}.narinfo", &name[..32]));
        std::fs::write(file, format!("{text}{signature}{downloads}")).unwrap();
        path
    }

    pub(crate) fn nar(&self, digit: char) -> PathBuf {
        self.dir.join(format!("{digit}.nar"))
    }

    pub(crate) fn narinfo(&self, digit: char) -> PathBuf {
        self.dir.join(format!("{}.narinfo", &name(digit)[..32]))
    }

    /// The NarHash of what is published, in base 32.
    pub(crate) fn nar_hash(&self, digit: char) -> String {
        let text = read(&self.narinfo(digit));
        let hash = text
            .lines()
            .find_map(|line| line.strip_prefix("NarHash: sha256:"))
            .unwrap();
        hash.to_owned()
    }
}

/// The base name of the item of `digit`.
pub(crate) fn name(digit: char) -> String {
    format!("{}-odd", digit.to_string().repeat(32))
}

pub(crate) fn file_nar(contents: &[u8]) -> Vec<u8> {
    let mut nar = NarWriter::new(Vec::new());
    nar.file(None, false, contents.len() as u64, contents)
        .unwrap();
    nar.finish().unwrap()
}

/// The program with `arguments` on `sandbox`'s root, for whom [`Publisher::trust`] named.
pub(crate) fn command(sandbox: &Sandbox, urls: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = sandbox.bare(arguments);
    command
        .args(["--substitute-urls", urls])
        .arg("--root")
        .arg(sandbox.root());
    command.arg("--acl").arg(sandbox.path("acl"));
    command
}

/// Makes the store say that it has built `path`, as guix-daemon would: a derivation and a log.
pub(crate) fn mark_as_built(sandbox: &Sandbox, path: &str) {
    add_build_log(sandbox, path, 1);
}

/// Adds a derivation of `path`, and the log of a build that ended so many seconds before `path` was registered.
pub(crate) fn add_build_log(sandbox: &Sandbox, path: &str, log_age: i64) {
    let database = sandbox.root().join("var/guix/db/db.sqlite");
    let database = Connection::open(database).unwrap();
    let base = path.rsplit('/').next().unwrap().replace("-odd", "-odd.drv");
    let hash = format!("sha256:{}", "0".repeat(64));
    let derivation = format!("/gnu/store/{base}");
    let sql = "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES (?1, ?2, 1)";
    database.execute(sql, [&derivation, &hash]).unwrap();
    let sql =
        "INSERT INTO DerivationOutputs (drv, id, path) VALUES (last_insert_rowid(), 'out', ?1)";
    database.execute(sql, [path]).unwrap();

    let log = sandbox.root().join("var/log/guix/drvs").join(&base[..2]);
    std::fs::create_dir_all(&log).unwrap();
    let log = log.join(format!("{}.gz", &base[2..]));
    std::fs::write(&log, "").unwrap();
    let sql = "SELECT registrationTime FROM ValidPaths WHERE path = ?1";
    let registered: i64 = database.query_row(sql, [path], |row| row.get(0)).unwrap();
    set_modified(&log, registered - log_age);
}

/// Sets when `path` was modified, in Unix seconds.
fn set_modified(path: &Path, seconds: i64) {
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

/// Writes `text` to the file `name`, which only its owner can read.
pub(crate) fn secret_file(sandbox: &Sandbox, name: &str, text: &str) -> PathBuf {
    let path = sandbox.path(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// A secret key as `guix archive --generate-key` writes it.
pub(crate) fn guix_secret(seed: u8) -> String {
    let key = SigningKey::from_bytes([seed; 32]);
    let [ecc] = key.public_key().exactly("public-key").unwrap();
    let [curve, q] = ecc.exactly("ecc").unwrap();
    let d = Sexp::tagged("d", [Sexp::atom([seed; 32])]);
    let ecc = Sexp::tagged("ecc", [curve.clone(), q.clone(), d]);
    Sexp::tagged("private-key", [ecc]).to_string()
}

/// What stands in the root for `path`.
pub(crate) fn installed(sandbox: &Sandbox, path: &str) -> PathBuf {
    sandbox.root().join(path.trim_start_matches('/'))
}

/// The contents of a file in the root.
pub(crate) fn contents(sandbox: &Sandbox, path: &str) -> String {
    read(&installed(sandbox, path))
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
