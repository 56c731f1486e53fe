//! Least privilege: before the first connection the process gives up what it no longer needs, so that
//! a fault in the code that reads servers' bytes cannot be used to change or read other files.
//!
//! From then on the calling thread and every thread it starts
//! - cannot gain privileges (`no_new_privs`) and cannot execute a program;
//! - open only the files below the paths of the [`SandboxRules`] (Landlock);
//! - cannot listen on TCP ports (Linux 6.7), nor send signals and connect to abstract sockets
//!   outside of the sandbox (Linux 6.12).
//!
//! Landlock does not restrict what is open already, metadata (`stat`, `chmod`), sockets with a name,
//! and outgoing connections. The restrictions cannot be lifted again.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    PathBeneath, PathFd, PathFdError, RestrictSelfAttr as _, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::io::Errno;

/// What stays allowed: files, or directories with everything below them. Symlinks are followed when
/// the sandbox is entered. What does not exist then cannot be made later.
#[derive(Debug, Default)]
pub(crate) struct SandboxRules {
    /// May be read.
    pub(crate) readable: Vec<PathBuf>,
    /// May be read, changed, created and removed.
    pub(crate) writable: Vec<PathBuf>,
}

/// Why the process is not confined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// There is no such system call, or it is not allowed.
    #[error("this kernel has no Landlock, or a container does not allow it")]
    Missing,
    /// It is not among the active security modules.
    #[error("Landlock is not enabled: the kernel parameter `lsm` has to contain `landlock`")]
    Disabled,
    /// The first version of Landlock does not allow links between directories.
    #[error("the Landlock of this kernel is too old; Linux 5.19 or later is needed")]
    Old,
    /// The kernel refuses the rules.
    #[error("setting up Landlock")]
    Refused(#[from] RulesetError),
    /// There are too few file descriptors, or too little memory, to name all files.
    #[error("setting up Landlock")]
    Shortage(#[from] PathFdError),
}

/// Confines the calling thread and the threads it starts later; from Linux 7.0 on also those that
/// exist. Rules for paths that do not exist are left out.
///
/// # Errors
/// The kernel does not support it. The process may go on without it, but with `no_new_privs`.
pub(crate) fn enter(rules: &SandboxRules) -> Result<(), SandboxError> {
    let status = restrict(rules)?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotImplemented) => Err(SandboxError::Missing),
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Err(SandboxError::Disabled),
        (RulesetStatus::NotEnforced, LandlockStatus::Available { .. }) => Err(SandboxError::Old),
        (RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, landlock) => {
            tracing::debug!(?landlock, ?rules, "sandbox entered");
            Ok(())
        }
    }
}

fn restrict(rules: &SandboxRules) -> Result<RestrictionStatus, SandboxError> {
    let mut ruleset = Ruleset::default()
        // Without this version there is no sandbox at all: it would forbid deduplication.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;

    let readable = AccessFs::ReadFile | AccessFs::ReadDir;
    let allowed = [(&rules.readable, readable), (&rules.writable, writable())];
    for (paths, access) in allowed {
        for path in paths {
            match PathFd::new(path) {
                Ok(path) => ruleset = ruleset.add_rule(PathBeneath::new(path, access))?,
                Err(error) if is_shortage(&error) => return Err(error.into()),
                // What cannot be opened needs no rule: it cannot be used either.
                Err(_) => {}
            }
        }
    }

    Ok(ruleset.all_threads(true)?.restrict_self()?)
}

/// Whether a path could be opened with more file descriptors or memory.
fn is_shortage(error: &PathFdError) -> bool {
    let PathFdError::OpenCall { source, .. } = error else {
        return false;
    };
    matches!(
        Errno::from_io_error(source),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)
    )
}

/// Everything but the execution of programs, and devices.
fn writable() -> BitFlags<AccessFs> {
    let devices =
        AccessFs::MakeBlock | AccessFs::MakeChar | AccessFs::MakeFifo | AccessFs::IoctlDev;
    AccessFs::from_all(ABI::V5) & !(devices | AccessFs::Execute)
}

#[cfg(test)]
pub(crate) mod tests;
