//! What the user can do about an item: it depends on the kind of miss, and of one that another
//! server than the first made good, on what the first said.

use crate::format::store_path::Dialect;
use crate::substitute::answer::{Answer, Found, Said};

use super::group::Group;

/// What to do about `found`, which is one of `kind`.
pub(super) fn of(found: &Found, kind: Group, dialect: Dialect) -> &'static str {
    match (kind, found.answers.first()) {
        (Group::Elsewhere, Some(first)) => of_first(first, dialect),
        _ => of_group(kind, dialect),
    }
}

fn of_group(kind: Group, dialect: Dialect) -> &'static str {
    match kind {
        Group::BadSignature => {
            "the server, or somebody on the way, has changed or damaged what was signed; \
             nothing of it is used; tell the server's administrator"
        }
        Group::WrongItem => {
            "the server mixes up its items, or a proxy its answers; nothing of it is used; \
             tell the server's administrator"
        }
        Group::Unusable => "this is no narinfo with a usable URL; tell its administrator",
        Group::Unsigned => "the server does not sign; its administrator has to set up a key",
        Group::UnauthorizedKey => match dialect {
            Dialect::Guix => {
                "if you trust this server, get its public key from its administrator and run \
                 `subst authorize FILE` (or `guix archive --authorize`)"
            }
            Dialect::Nix => {
                "if you trust this server, get its public key from its administrator and name it \
                 with --trusted-public-keys, or in nix.conf"
            }
        },
        Group::Missing => "build it, or name a server that has it with --substitute-urls",
        Group::MissingRemembered => {
            "--refresh asks again now; else the answer holds for the time shown"
        }
        Group::Preparing => "ask again in a few minutes; built here it may be sooner or later",
        Group::ServerDown => "`subst servers` shows who is up; ask again when they are",
        Group::ServerSkipped => "--refresh asks at once; `subst servers` shows who is up again",
        Group::ServerError => "ask again later, or tell the server's administrator",
        Group::OtherStore => {
            "name a server for this store with --substitute-urls, or the store that these are \
             for with --store-dir"
        }
        Group::Offline => "leave out --offline to ask the servers",
        Group::Elsewhere | Group::AskedFirst | Group::Cached => NOTHING,
    }
}

/// What to do when `first` is what the first server said, and another one has the item.
fn of_first(first: &Answer, dialect: Dialect) -> &'static str {
    match &first.said {
        Said::Refused(_) | Said::Unusable(_) | Said::Unreadable(_) => {
            of_group(Group::of_refused(first).unwrap_or(Group::Unusable), dialect)
        }
        Said::Failed(_) if first.is_of_the_item() => {
            "the first server answers with an error: tell its administrator"
        }
        Said::Failed(_) => "the first server is down: `subst servers` shows when it is up again",
        Said::Skipped(_) => {
            "the first server was down a moment ago: `subst servers` shows whether it is up \
             again, --refresh asks it at once"
        }
        Said::Late => {
            "the first server is slow; if it stays so, name another one before it in \
             --substitute-urls"
        }
        Said::OtherStore(_) => {
            "the first server is for another store: remove it from --substitute-urls"
        }
        Said::Offline => "leave out --offline to ask the first server",
        Said::NotAsked
        | Said::Authorized
        | Said::Equivalent(_)
        | Said::Missing(_)
        | Said::Baking(_) => NOTHING,
    }
}

const NOTHING: &str = "nothing to do; the order of --substitute-urls decides who is preferred";
