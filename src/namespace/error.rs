//! Why a namespace cannot be made.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::obstacle::Obstacle;

/// Why the store is not at its place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamespaceError {
    /// The kernel or a container does not allow it.
    #[error("{obstacle}")]
    Forbidden {
        /// What does not allow it.
        obstacle: Obstacle,
        /// What was tried. The error for a limit is left out: it is that of a full disk.
        source: Option<StepError>,
    },
    /// A step fails for another reason.
    #[error(transparent)]
    Failed(#[from] StepError),
}

impl NamespaceError {
    /// The failure of `step` on a machine with the root directory `root`.
    pub(super) fn of(step: StepError, root: &Path) -> Self {
        match Obstacle::find(root) {
            Some(obstacle) if step.is_refusal() => Self::Forbidden {
                obstacle,
                source: (obstacle != Obstacle::Limit).then_some(step),
            },
            _ => Self::Failed(step),
        }
    }

    /// What allows it, as a sentence without its end, if it is known.
    #[must_use]
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Forbidden { obstacle, .. } => obstacle.remedy(),
            Self::Failed(_) => None,
        }
    }

    /// Whether a tool with other privileges may do the same.
    #[must_use]
    pub(crate) fn is_about_privileges(&self) -> bool {
        match self {
            Self::Forbidden { .. } => true,
            Self::Failed(step) => step.is_refusal(),
        }
    }
}

/// A step that fails.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub(crate) struct StepError {
    /// What was tried, and on which file or directory.
    action: String,
    /// Why it fails.
    pub(super) source: io::Error,
}

impl StepError {
    /// Wraps the failure of `action`.
    pub(super) fn of<E: Into<io::Error>>(action: &str) -> impl FnOnce(E) -> Self {
        move |source| Self {
            action: action.to_owned(),
            source: source.into(),
        }
    }

    /// Wraps the failure of `action` on `path`.
    pub(super) fn on<E: Into<io::Error>>(action: &str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self {
            action: format!("{action} {}", path.display()),
            source: source.into(),
        }
    }

    /// Whether the kernel gives this error for what is not allowed. It has no error of its own for a
    /// limit of zero namespaces, nor for a process below a changed root directory.
    fn is_refusal(&self) -> bool {
        matches!(
            Errno::from_io_error(&self.source),
            Some(
                Errno::PERM
                    | Errno::ACCESS
                    | Errno::NOSPC
                    | Errno::USERS
                    | Errno::NOSYS
                    | Errno::INVAL
            )
        )
    }
}
