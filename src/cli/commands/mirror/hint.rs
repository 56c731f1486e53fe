//! What the user can do about an item that was not copied, or a mirror that cannot be written.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::cli::advice::Advice;
use crate::cli::error::DISSENT_HINT;
use crate::cli::shell_command::quoted;
use crate::substitute::install::FailureClass;
use crate::substitute::mirror::{MirrorFailure, TargetError};
use crate::substitute::outcome::LookupOutcome;
use crate::trust::verdict::Refusal;

/// What the user can do about `failure` of a copy to the mirror `to`.
pub(super) fn hint(failure: &MirrorFailure, to: &Path, advice: &Advice) -> Option<String> {
    let text = match failure {
        MirrorFailure::Unavailable(answers) => {
            let mut keys = answers
                .iter()
                .filter_map(|(_, answer)| unauthorized(answer));
            match keys.next() {
                Some(first) => advice.trust_signer(std::iter::once(first).chain(keys)),
                None => by_class(failure.class(), advice),
            }
        }
        MirrorFailure::Policy(Refusal::Dissent(_)) => DISSENT_HINT.to_owned(),
        MirrorFailure::MissingReference(missing) => {
            format!("the message about {} says what helps", missing.base())
        }
        MirrorFailure::Target(TargetError::Locked(_)) => {
            "wait for the other process, or end it".to_owned()
        }
        MirrorFailure::Target(TargetError::File { source, .. }) => return file_hint(source, to),
        MirrorFailure::Interrupted => return None,
        _ => by_class(failure.class(), advice),
    };
    Some(text)
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
            "run it again, which copies only what is missing; `{}` shows which servers respond",
            advice.servers()
        ),
        FailureClass::Refused => {
            "another server may have it: --substitute-urls; tell the administrator of this one"
                .to_owned()
        }
        _ => "another server may have it: --substitute-urls".to_owned(),
    }
}

fn file_hint(error: &io::Error, to: &Path) -> Option<String> {
    let name = quoted(&to.display().to_string());
    match error.kind() {
        ErrorKind::PermissionDenied => Some(format!(
            "run it as the owner of the mirror (`ls -ld {name}`), or give another directory with --to"
        )),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(format!(
            "free some space (`df {name}`) and run it again, which copies only what is missing"
        )),
        _ => None,
    }
}
