//! Copies of the fixture servers, to be damaged.

use std::path::{Path, PathBuf};

use super::{files_below, repository};

/// Which of the fixture servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Guix,
    NixBrotli,
    NixLz4,
    NixXz,
    NixZstd,
}

impl Kind {
    /// Its directory in the repository.
    pub(crate) fn directory(self) -> PathBuf {
        let name = match self {
            Self::Guix => "guix",
            Self::NixBrotli => "nix/br",
            Self::NixLz4 => "nix/lz4",
            Self::NixXz => "nix/xz",
            Self::NixZstd => "nix/zstd",
        };
        repository().join("fixtures").join(name)
    }

    /// Its address.
    pub(crate) fn url(self) -> String {
        format!("file://{}", self.directory().display())
    }

    /// The directory with what is expected of it.
    pub(crate) fn expected(self) -> PathBuf {
        let directory = self.directory();
        match self {
            Self::Guix => directory,
            Self::NixBrotli | Self::NixLz4 | Self::NixXz | Self::NixZstd => {
                directory.parent().unwrap().to_owned()
            }
        }
    }

    /// The full name of the item that is called `subst-NAME-1.0`.
    pub(crate) fn item(self, name: &str) -> String {
        let rows = std::fs::read_to_string(self.expected().join("expected-rows.txt")).unwrap();
        let mut paths = rows.lines().filter_map(|line| line.split('\t').next());
        paths
            .find(|path| path.ends_with(&format!("-subst-{name}-1.0")))
            .unwrap()
            .to_owned()
    }
}

/// The full name of an item of the Guix fixtures.
pub(crate) fn item(name: &str) -> String {
    Kind::Guix.item(name)
}

/// The last part of a full name.
pub(crate) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// A copy of a fixture server.
pub(crate) struct Fixture {
    pub(crate) dir: PathBuf,
}

impl Fixture {
    /// Copies `kind` to `dir`.
    pub(crate) fn copy(kind: Kind, dir: PathBuf) -> Self {
        let from = kind.directory();
        for file in files_below(&from, "") {
            let to = dir.join(file.strip_prefix(&from).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(&file, &to).unwrap();
        }
        Self { dir }
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.dir.display())
    }

    /// The narinfo of the item with this full name.
    pub(crate) fn narinfo(&self, path: &str) -> PathBuf {
        self.dir.join(format!("{}.narinfo", &base(path)[..32]))
    }

    /// The nar of an item, compressed with `method`.
    pub(crate) fn nar(&self, path: &str, method: &str) -> PathBuf {
        let nars = self.dir.join("nar");
        if method == "none" {
            nars.join(base(path))
        } else {
            nars.join(method).join(base(path))
        }
    }

    /// Rewrites the narinfo of an item; something must change.
    pub(crate) fn edit(&self, path: &str, edit: impl FnOnce(&str) -> String) {
        let file = self.narinfo(path);
        let before = std::fs::read_to_string(&file).unwrap();
        let after = edit(&before);
        assert_ne!(before, after, "nothing was changed");
        std::fs::write(file, after).unwrap();
    }

    /// Leaves only the downloads with `method` in every narinfo.
    pub(crate) fn only(&self, method: &str) {
        for narinfo in files_below(&self.dir, ".narinfo") {
            let text = std::fs::read_to_string(&narinfo).unwrap();
            std::fs::write(narinfo, only(&text, method)).unwrap();
        }
    }

    /// Compresses every nar of a Nix server again, with `pack`.
    pub(crate) fn repack(&self, method: &str, pack: impl Fn(&[u8]) -> Vec<u8>) {
        for narinfo in files_below(&self.dir, ".narinfo") {
            let text = std::fs::read_to_string(&narinfo).unwrap();
            let url = text
                .lines()
                .find_map(|line| line.strip_prefix("URL: "))
                .unwrap();
            let nar = zstd::decode_all(&*std::fs::read(self.dir.join(url)).unwrap()).unwrap();
            std::fs::write(self.dir.join(url), pack(&nar)).unwrap();
            let is_ours = |line: &&str| !line.starts_with("File") && !line.starts_with("Compr");
            let kept: Vec<_> = text.lines().filter(is_ours).collect();
            let text = format!("{}\nCompression: {method}\n", kept.join("\n"));
            std::fs::write(narinfo, text).unwrap();
        }
    }

    /// Adds downloads with bzip2, which Guix has not made for years, and leaves only those.
    pub(crate) fn only_bzip2(&self) {
        std::fs::create_dir(self.dir.join("nar/bzip2")).unwrap();
        for narinfo in files_below(&self.dir, ".narinfo") {
            let text = std::fs::read_to_string(&narinfo).unwrap();
            let url = text
                .lines()
                .find_map(|line| line.strip_prefix("URL: nar/xz/"))
                .unwrap();
            let nar = std::fs::File::open(self.dir.join("nar").join(url)).unwrap();
            let mut packed = bzip2::read::BzEncoder::new(nar, bzip2::Compression::best());
            let mut file = std::fs::File::create(self.dir.join("nar/bzip2").join(url)).unwrap();
            std::io::copy(&mut packed, &mut file).unwrap();
            let signed = text.split_once("\nURL: ").unwrap().0;
            let text = format!("{signed}\nURL: nar/bzip2/{url}\nCompression: bzip2\n");
            std::fs::write(narinfo, text).unwrap();
        }
    }
}

/// A narinfo's text without the downloads that are not compressed with `method`.
pub(crate) fn only(text: &str, method: &str) -> String {
    let (signed, downloads) = text.split_once("\nURL: ").unwrap();
    let wanted = format!("\nCompression: {method}\n");
    let mut downloads = downloads.split("\nURL: ").map(|group| format!("{group}\n"));
    let group = downloads.find(|group| group.contains(&wanted)).unwrap();
    format!("{signed}\nURL: {}\n", group.trim_end())
}

/// Turns one bit of a file.
pub(crate) fn flip(file: &Path, position: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[position] ^= 1 << (position % 8);
    std::fs::write(file, bytes).unwrap();
}
