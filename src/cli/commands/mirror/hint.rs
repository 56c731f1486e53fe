//! What the user can do about an item that was not copied, or a mirror that cannot be written.

use std::io::{self, ErrorKind};

use crate::cli::advice::Advice;
use crate::cli::item_hint::{DISSENT_HINT, name_hint};
use crate::cli::mirror_place::MirrorPlace;
use crate::cli::shell_command::{add, quoted};
use crate::http::{BucketError, HttpError, HttpErrorKind, Outage};
use crate::substitute::download::errors::CopyError;
use crate::substitute::install::FailureClass;
use crate::substitute::mirror::{MirrorFailure, TargetError};
use crate::substitute::outcome::LookupOutcome;
use crate::trust::verdict::Refusal;

/// What hints to run a copy again add.
pub(super) const COPIES_THE_REST: &str = ", which copies only what is missing";

/// What hints say about a narinfo whose item is not known.
pub(super) const COPY_AGAIN: &str =
    "copy the item again (`subst mirror --closure` or `--list`), or remove the file";

/// What the user can do about `failure` of a copy to the mirror `to`.
pub(super) fn hint(failure: &MirrorFailure, to: &MirrorPlace, advice: &Advice) -> Option<String> {
    let text = match failure {
        MirrorFailure::Unavailable(answers) => {
            let mut keys = answers
                .iter()
                .filter_map(|(_, answer)| unauthorized(answer));
            let outcomes: Vec<_> = answers.iter().map(|(_, answer)| answer).collect();
            match (keys.next(), name_hint(&outcomes)) {
                (Some(first), _) => advice.trust_signer(std::iter::once(first).chain(keys)),
                (None, Some(hint)) => hint,
                (None, None) => by_class(failure.class(), advice),
            }
        }
        MirrorFailure::Policy(Refusal::Dissent(_)) => DISSENT_HINT.to_owned(),
        MirrorFailure::MissingReference(missing) => {
            format!("the message about {} says what helps", missing.base())
        }
        MirrorFailure::NarInfo { .. } => narinfo_hint(to, advice),
        MirrorFailure::Clock(_) => {
            "set the clock (`date` shows it); if it is right, `touch` the file, or remove \
             subst/tombstones: then nars stay longer"
                .to_owned()
        }
        MirrorFailure::Record(_) => "use that version".to_owned(),
        MirrorFailure::Target(TargetError::Locked(_)) => {
            "wait for the other process, or end it".to_owned()
        }
        MirrorFailure::Target(TargetError::LeaseHeld { .. }) => {
            "wait for it; one that was killed on another machine is ignored after 3 minutes"
                .to_owned()
        }
        MirrorFailure::Target(TargetError::LeaseLost(_)) => {
            format!("run it again{COPIES_THE_REST}")
        }
        MirrorFailure::Target(TargetError::Directory { source, .. })
            if source.kind() == ErrorKind::NotADirectory =>
        {
            "give a directory with --to".to_owned()
        }
        MirrorFailure::Target(
            TargetError::File { source, .. } | TargetError::Directory { source, .. },
        ) => return file_hint(source, to),
        MirrorFailure::Target(TargetError::Spool { source, path, .. }) => {
            return Some(spool_hint(source, Some(path)));
        }
        MirrorFailure::Target(TargetError::Bucket { source, .. }) => {
            return bucket_hint(source, to);
        }
        MirrorFailure::Target(TargetError::Changed(_)) => {
            "let one program at a time write to the bucket, and run it again".to_owned()
        }
        MirrorFailure::Copy {
            source: CopyError::Write(error),
            ..
        } => return copy_hint(error, to),
        MirrorFailure::Interrupted => return None,
        _ => by_class(failure.class(), advice),
    };
    Some(text)
}

/// What the user can do about a narinfo of the mirror that does not describe its item.
fn narinfo_hint(to: &MirrorPlace, advice: &Advice) -> String {
    let mut verify = mirror_command("verify --repair", to, advice);
    advice.add_servers(&mut verify);
    format!("`{verify}` fetches it again if another item refers to it; otherwise {COPY_AGAIN}")
}

/// The command that does `what` with the mirror `to`, with the options of this run that it needs.
pub(super) fn mirror_command(what: &str, to: &MirrorPlace, advice: &Advice) -> String {
    let mut command = format!("subst mirror {what}");
    let store_dir = advice.invocation.store_dir.as_deref();
    add(&mut command, "--store-dir", store_dir);
    add(&mut command, "--to", Some(&to.to_string()));
    command
}

fn unauthorized(answer: &LookupOutcome) -> Option<&str> {
    match answer {
        LookupOutcome::Refused(Refusal::UnauthorizedKey { key }) => Some(key.as_str()),
        _ => None,
    }
}

fn by_class(class: FailureClass, advice: &Advice) -> String {
    match class {
        FailureClass::Transient => format!(
            "run it again{COPIES_THE_REST}; `{}` shows which servers respond",
            advice.servers()
        ),
        FailureClass::Refused => {
            "another server may have it: --substitute-urls; tell the administrator of this one"
                .to_owned()
        }
        _ => "another server may have it: --substitute-urls".to_owned(),
    }
}

fn file_hint(error: &io::Error, to: &MirrorPlace) -> Option<String> {
    let name = quoted(&to.to_string());
    match error.kind() {
        ErrorKind::PermissionDenied => Some(format!(
            "run it as the owner of the mirror (`ls -ld {name}`), or give another directory with --to"
        )),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(format!(
            "free some space (`df {name}`) and run it again{COPIES_THE_REST}"
        )),
        // A link, or something else that is no file or no directory.
        ErrorKind::Other
        | ErrorKind::AlreadyExists
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory => Some(
            "a mirror consists of regular files and directories: move what is there away; to use another disk, \
             mount it there, or give a directory on it with --to"
                .to_owned(),
        ),
        _ => None,
    }
}

/// What the user can do about a copy that cannot be written: in the mirror, or on the way to a bucket.
fn copy_hint(error: &io::Error, to: &MirrorPlace) -> Option<String> {
    match to.bucket() {
        Some(_) => Some(spool_hint(error, None)),
        None => file_hint(error, to),
    }
}

/// What the user can do about the files that are sent to a bucket, which are at `path`.
fn spool_hint(error: &io::Error, path: Option<&str>) -> String {
    let is_full = matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    );
    let place = path.map(|path| format!(" (`df {}`)", quoted(path)));
    match is_full {
        true => format!(
            "free some space{}, or name another cache directory with XDG_CACHE_HOME",
            place.unwrap_or_default()
        ),
        false => "name another cache directory with XDG_CACHE_HOME".to_owned(),
    }
}

/// What the user can do about a request for the bucket `to` that failed.
fn bucket_hint(error: &HttpError, to: &MirrorPlace) -> Option<String> {
    let HttpErrorKind::Bucket(bucket_error) = error.kind() else {
        let text = match (error.status(), error.outage()) {
            (Some(429 | 503), _) => "the object store is overloaded: run it again later",
            (_, Some(Outage::Unreachable | Outage::Silent(_))) => {
                "check `endpoint` and `region` in the URL of the bucket; if they are right, run it again later"
            }
            _ => "run it again",
        };
        return Some(format!("{text}{COPIES_THE_REST}"));
    };
    let text = match &**bucket_error {
        BucketError::NoBucket(name) => format!(
            "create it first, as with `aws s3 mb s3://{name}`{}",
            endpoint_option(to)
        ),
        BucketError::MayNot { .. } => {
            "the guide to mirrors lists the rights that the key needs (docs/guides/mirror.md)"
                .to_owned()
        }
        BucketError::Full => {
            "raise the quota of the bucket or of its owner, or copy fewer items".to_owned()
        }
        // Their texts say what helps.
        _ => return None,
    };
    Some(text)
}

/// The option with which the AWS tools reach the object store of `to`.
fn endpoint_option(to: &MirrorPlace) -> String {
    let bucket = to.bucket().filter(|server| {
        let location = server.bucket();
        location.is_some_and(|location| !location.is_at_amazon)
    });
    match bucket {
        Some(server) => {
            let origin = server.base().origin().ascii_serialization();
            format!(" and `--endpoint-url {origin}`")
        }
        None => String::new(),
    }
}
