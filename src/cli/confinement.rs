//! The rules of the sandbox, from the settings: which files a command needs after its start.
//!
//! Settings, keys and the log file are open or read before the sandbox is entered and need no rule. The
//! resolver and the TLS library read the system's files whenever they need them. Those of /etc
//! are named one by one for root, from whom no file there is protected otherwise.

use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::format::compression::Compression;
use crate::format::server_url::ServerUrl;
use crate::sandbox::SandboxRules;
use crate::store::Layout;

use super::settings::Settings;

/// What a command changes on disk, besides the lookup cache.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DiskChanges<'a> {
    /// Whether it adds to the store.
    pub(crate) store: bool,
    /// The directories in which it creates a tree or files.
    pub(crate) directories: &'a [&'a Path],
}

impl DiskChanges<'_> {
    /// It changes nothing.
    pub(crate) const NONE: Self = Self {
        store: false,
        directories: &[],
    };
    /// It adds to the store.
    pub(crate) const STORE: Self = Self {
        store: true,
        directories: &[],
    };
}

/// The rules for a run with these settings that makes `changes`.
pub(super) fn rules(settings: &Settings, changes: DiskChanges<'_>) -> SandboxRules {
    let mut rules = SandboxRules {
        readable: SYSTEM_FILES.map(PathBuf::from).to_vec(),
        writable: settings.cache_dirs.clone(),
    };

    rules.readable.extend(configuration_of_system());
    // A change of the ACL reads it again. It may be a link to another directory.
    rules.readable.push(settings.acl.clone());
    for path in settings.certificate_paths() {
        rules.readable.extend(link_targets(path));
        rules.readable.push(path.to_owned());
    }
    let token_files = settings.http.credentials.token_files();
    rules.readable.extend(token_files.flat_map(renewed_file));

    let directories = settings.servers.iter().filter_map(local_directory);
    rules.readable.extend(directories.flat_map(with_nars));

    let layout = &settings.layout;
    rules.readable.push(layout.store().to_owned());
    // A reader of a database in WAL mode takes part in its shared memory.
    rules.writable.push(layout.database().to_owned());
    if changes.store {
        rules.writable.extend(store_paths(layout));
    }
    let directories = changes.directories.iter();
    rules
        .writable
        .extend(directories.map(|directory| (*directory).to_owned()));
    rules
}

/// What a command writes to when it adds to the store.
fn store_paths(layout: &Layout) -> [PathBuf; 3] {
    [
        layout.store().to_owned(),
        layout.temp_roots_dir(),
        layout.gc_lock(),
    ]
}

/// What is needed of /etc: all of it, except for root. /etc/resolv.conf may lead to a directory
/// in which the file is replaced when the network changes.
fn configuration_of_system() -> Vec<PathBuf> {
    if !geteuid().is_root() {
        return vec![PathBuf::from("/etc")];
    }

    let mut paths = CONFIGURATION_FILES.map(PathBuf::from).to_vec();
    if let Ok(target) = Path::new(RESOLVER_FILE).canonicalize()
        && let Some(directory) = target.parent()
        && directory != Path::new("/etc")
    {
        paths.push(directory.to_owned());
    }
    paths
}

/// What has to be readable for `file`, which others replace by another one of this name, or whose symlink they
/// change: a rule is for a file, not for its name, so it is for the directory. Those from which much else hangs
/// remain closed; there, the file can be read until it is replaced.
fn renewed_file(file: &Path) -> Vec<PathBuf> {
    const NESTED: usize = 3;
    let target = file.canonicalize().ok();
    let files = [Some(file.to_owned()), target].into_iter().flatten();
    files
        .flat_map(|file| {
            let directory = file.parent().map(Path::to_owned);
            let directory = directory.filter(|path| path.components().count() >= NESTED);
            [Some(file), directory]
        })
        .flatten()
        .collect()
}

/// The directory of a `file:` server.
fn local_directory(server: &ServerUrl) -> Option<PathBuf> {
    let base = server.base();
    (base.scheme() == "file").then(|| base.to_file_path().ok())?
}

/// The directory of a `file:` server, and those of its nars, which may be symlinks to another disk.
fn with_nars(directory: PathBuf) -> Vec<PathBuf> {
    let nars = directory.join("nar");
    let methods = Compression::ALL.map(|method| nars.join(method.name()));
    [directory, nars].into_iter().chain(methods).collect()
}

/// Where the symlinks in `directory` lead, which names each certificate that way.
fn link_targets(directory: &Path) -> Vec<PathBuf> {
    const LINKS_MAX: usize = 2000;
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    links.take(LINKS_MAX).map(|entry| entry.path()).collect()
}

const RESOLVER_FILE: &str = "/etc/resolv.conf";

/// Libraries that the resolver loads when it needs them, certificates outside of /etc, and what the C
/// library and the store read from the kernel.
const SYSTEM_FILES: [&str; 25] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/gnu/store",
    "/nix/store",
    "/opt/etc/ssl",
    "/var/ssl",
    "/var/lib/ca-certificates",
    "/var/lib/sss/mc",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/NetworkManager/resolv.conf",
    "/run/connman",
    "/run/nscd",
    "/run/resolvconf",
    "/run/systemd/netif",
    "/run/systemd/resolve",
    "/var/cache/nscd",
    "/var/db/nscd",
    "/var/run/nscd",
    "/dev/null",
    "/dev/urandom",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/fs/ext4",
];

/// Files of /etc that the resolver, the C library and the TLS library read.
const CONFIGURATION_FILES: [&str; 24] = [
    "/etc/ca-certificates",
    "/etc/certs",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/mdns.allow",
    "/etc/networks",
    "/etc/nsswitch.conf",
    "/etc/openssl",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    RESOLVER_FILE,
    "/etc/services",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
];

#[cfg(test)]
mod tests;
