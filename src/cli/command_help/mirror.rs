//! The help of `subst mirror`.

use super::entry::{CommandHelp, example};
use crate::cli::exit::Exit;
use crate::cli::settings::OptionGroup;

/// The help of `subst mirror verify`.
pub(super) const MIRROR_VERIFY: CommandHelp = CommandHelp {
    path: &["mirror", "verify"],
    groups: &[],
    examples: &[
        example(
            "subst mirror verify --to /srv/mirror",
            "Find narinfos that lead to nothing, and nars that belong to nothing",
        ),
        example(
            "subst mirror verify --to 's3://cache?endpoint=https://s3.example.org'",
            "The same for a bucket",
        ),
        example(
            "subst mirror verify --to /srv/mirror --deep --repair",
            "Read all nars too, and fetch again what is wrong",
        ),
    ],
    exits: Exit::ALL,
    notes: "The exit status is 3 when something is missing, wrong or not authorized by the keys in use, and 5 when it \
        cannot be read. With --repair, faults that were repaired do not count. Nars that belong to no item, and files \
        that are not part of a mirror, are no faults; --verbose names them.",
};

/// The help of `subst mirror gc`.
pub(super) const MIRROR_GC: CommandHelp = CommandHelp {
    path: &["mirror", "gc"],
    groups: &[],
    examples: &[
        example(
            "subst mirror gc --to /srv/mirror --keep-list items",
            "Keep the items that a file names, with all that they refer to",
        ),
        example(
            "subst mirror gc --to /srv/mirror --keep-days 90 --max-size 200G",
            "Remove the oldest until the rest fits, but nothing of the last 90 days",
        ),
        example(
            "subst mirror gc --to /srv/mirror",
            "Remove only nars that no narinfo has named for long enough",
        ),
    ],
    exits: &[
        Exit::Done,
        Exit::Usage,
        Exit::Network,
        Exit::Local,
        Exit::Interrupted,
    ],
    notes: "Clients see no narinfo without its nars and the narinfos of its references at any time. Without --keep-list, \
        --keep-days and --max-size, all items stay. A --grace that is longer than the default is recorded in the mirror \
        and used from then on.",
};

/// The help of `subst mirror`.
pub(super) const MIRROR: CommandHelp = CommandHelp {
    path: &["mirror"],
    groups: &[
        OptionGroup::Store,
        OptionGroup::Trust,
        OptionGroup::Servers,
        OptionGroup::Downloads,
        OptionGroup::Json,
        OptionGroup::General,
    ],
    examples: &[
        example(
            "subst mirror --to /srv/mirror --closure /gnu/store/...-hello-2.12.2",
            "Copy an item and all that it refers to",
        ),
        example(
            "subst mirror --to /srv/mirror --list items --compression zstd",
            "Copy the items that a file names, compressed with zstd where the servers have that",
        ),
        example(
            "subst mirror --to /srv/mirror --all --substitute-urls file:///mnt/disk",
            "Copy all items of a server that is a directory",
        ),
        example(
            "subst mirror --to 's3://cache?endpoint=https://s3.example.org' --list items",
            "Copy items to a bucket",
        ),
    ],
    exits: Exit::ALL,
    notes: "Run it again at any time: only what is missing or has changed is copied. docs/guides/mirror.md \
        describes how to serve the directory, and which rights a bucket needs. Items that cannot be copied are skipped, with all that refer to them.",
};
