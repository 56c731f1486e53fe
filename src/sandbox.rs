//! Least privilege: before the first connection the process gives up what it no longer needs, so that
//! a fault in the code that reads servers' bytes cannot be used to change or read other files.
//!
//! From then on the calling thread and every thread it starts
//! - cannot gain privileges (`no_new_privs`) and cannot execute a program;
//! - have only the capabilities that writing a store needs, of those that they had;
//! - open only the files below the paths of the [`SandboxRules`] (Landlock);
//! - cannot listen on TCP ports (Linux 6.7), nor send signals and connect to abstract sockets
//!   outside of the sandbox (Linux 6.12).
//!
//! Landlock does not restrict what is open already, metadata (`stat`, `chmod`), sockets with a name,
//! outgoing connections, and before Linux 6.2 `truncate`. The restrictions cannot be lifted again.

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, AddRuleError, AddRulesError, BitFlags, CompatLevel,
    Compatible as _, LandlockStatus, PathBeneath, PathFd, PathFdError, RestrictSelfAttr as _,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, Scope,
};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

/// What stays allowed: files, or directories with everything below them. Symlinks are followed when
/// the sandbox is entered. What does not exist then cannot be made later.
#[derive(Debug, Default)]
pub(crate) struct SandboxRules {
    /// May be read.
    pub(crate) readable: Vec<PathBuf>,
    /// May be read, changed, created and removed.
    pub(crate) writable: Vec<PathBuf>,
}

/// What root keeps: to write to files and directories of any user, and to give them owner, mode and
/// times. Without the others it is not allowed to mount, trace other processes, make devices, set up
/// networks or load code into the kernel.
const KEPT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// Why the process is not confined, or only in part.
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
    /// The first two versions of Landlock do not restrict `truncate`.
    #[error(
        "the Landlock of this kernel does not keep files from being truncated; \
         Linux 6.2 or later is needed"
    )]
    Truncation,
    /// The capabilities that are not needed cannot be given up, or others may be gained.
    #[error("giving up privileges")]
    Privileges(#[source] io::Error),
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
/// The kernel does not support all of it. The process may go on: what is supported is in effect, and
/// `no_new_privs` and the loss of capabilities always are.
pub(crate) fn enter(rules: &SandboxRules) -> Result<(), SandboxError> {
    let restricted = restrict(rules);
    give_up_privileges()?;

    let status = restricted?;
    tracing::debug!(?status, ?rules, "sandbox entered");
    check_enforcement(status.ruleset, status.landlock)
}

/// Whether the kernel enforces what the rules are about.
fn check_enforcement(ruleset: RulesetStatus, landlock: LandlockStatus) -> Result<(), SandboxError> {
    match (ruleset, landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotImplemented) => Err(SandboxError::Missing),
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Err(SandboxError::Disabled),
        (RulesetStatus::NotEnforced, LandlockStatus::Available { .. }) => Err(SandboxError::Old),
        (_, LandlockStatus::Available { effective_abi, .. }) if effective_abi < ABI::V3 => {
            Err(SandboxError::Truncation)
        }
        (RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, _) => Ok(()),
    }
}

/// Reduces the capabilities of the calling thread to [`KEPT_CAPABILITIES`]. The bounding set can stay
/// as it is: it is for the execution of programs, which gains nothing with `no_new_privs`.
fn give_up_privileges() -> Result<(), SandboxError> {
    // Landlock has set it only if it is in effect.
    let sets = set_no_new_privs(true).and_then(|()| capabilities(None));
    let reduced = sets.and_then(|sets| {
        let kept = CapabilitySets {
            effective: sets.effective & KEPT_CAPABILITIES,
            permitted: sets.permitted & KEPT_CAPABILITIES,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, kept)
    });
    reduced.map_err(|error| SandboxError::Privileges(error.into()))
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
                Ok(path) => match (&mut ruleset).add_rule(PathBeneath::new(path, access)) {
                    Err(error) if !is_outside_file_systems(&error) => return Err(error.into()),
                    _ => {}
                },
                Err(error) if is_shortage(&error) => return Err(error.into()),
                // What cannot be opened needs no rule: it cannot be used either.
                Err(_) => {}
            }
        }
    }

    Ok(ruleset.all_threads(true)?.restrict_self()?)
}

/// Whether a path leads to a pipe, or to a file without a name, by `/dev/fd`: there are no rules for those, and they are
/// not restricted.
fn is_outside_file_systems(error: &RulesetError) -> bool {
    let RulesetError::AddRules(AddRulesError::Fs(AddRuleError::AddRuleCall { source, .. })) = error
    else {
        return false;
    };
    Errno::from_io_error(source) == Some(Errno::BADFD)
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
