//! What a verification of a mirror found, as lines or as JSON (`docs/schema/mirror-verify.json`).

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use serde::Serialize;

use crate::cli::args::MirrorVerifyArgs;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::{Verbosity, bytes, count};
use crate::cli::shell_command::again_with_flag;
use crate::format::error_text::chain;
use crate::substitute::mirror::{MirrorFault, MirrorFinding, MirrorVerification};
use crate::trust::verdict::Refusal;

use super::hint::{COPY_AGAIN, mirror_command};

/// What was found in a mirror.
#[derive(Serialize)]
pub(super) struct VerifiedMirror {
    findings: Vec<MirrorFindingView>,
    orphans: Vec<String>,
    foreign: Vec<String>,
    summary: VerifiedMirrorSummary,
    /// Keys that have signed narinfos and are not authorized.
    #[serde(skip)]
    unauthorized_keys: BTreeSet<String>,
    /// Whether narinfos have the signatures of too few principals.
    #[serde(skip)]
    lacks_votes: bool,
    /// Whether there is a fault other than these two, and those of narinfos whose items are not known.
    #[serde(skip)]
    has_other_fault: bool,
}

#[derive(Serialize)]
struct MirrorFindingView {
    item: Option<String>,
    file: String,
    status: MirrorFaultStatus,
    reason: String,
    repaired: bool,
    #[serde(skip)]
    is_nameless: bool,
}

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum MirrorFaultStatus {
    /// A nar is not what its narinfo says.
    Damaged,
    /// A file that a narinfo leads to is missing.
    Missing,
    /// A narinfo does not describe its item, or leads out of the mirror.
    Invalid,
    /// The keys and the policy in use do not allow it.
    Unauthorized,
    /// Something cannot be read.
    Unreadable,
}

#[derive(Serialize)]
struct VerifiedMirrorSummary {
    narinfos: u64,
    nars: u64,
    bytes: u64,
    seconds: f64,
    faults: usize,
    repaired: usize,
    orphan_bytes: u64,
}

impl MirrorFaultStatus {
    const ALL: [Self; 5] = [
        Self::Damaged,
        Self::Missing,
        Self::Invalid,
        Self::Unauthorized,
        Self::Unreadable,
    ];

    fn of(fault: &MirrorFault) -> Self {
        match fault {
            MirrorFault::Size { .. } | MirrorFault::Contents(_) => Self::Damaged,
            MirrorFault::Missing | MirrorFault::MissingReference(_) => Self::Missing,
            MirrorFault::NarInfo(_) | MirrorFault::CacheInfo | MirrorFault::Method => Self::Invalid,
            MirrorFault::Unauthorized(_) | MirrorFault::ContentOnly => Self::Unauthorized,
            MirrorFault::Unreadable(_) | MirrorFault::Undecoded(_) => Self::Unreadable,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::Unreadable => "unreadable",
        }
    }

    /// The exit code while the fault is there.
    fn exit(self) -> Exit {
        match self {
            Self::Unreadable => Exit::Local,
            _ => Exit::Refused,
        }
    }
}

impl VerifiedMirror {
    /// What `found` says.
    pub(super) fn new(context: &Context, found: &MirrorVerification) -> Self {
        let store_dir = context.settings.store_dir();
        let findings = found.findings.iter().map(|finding| MirrorFindingView {
            item: finding.item.as_ref().map(|item| store_dir.full_name(item)),
            file: finding.file.clone(),
            status: MirrorFaultStatus::of(&finding.fault),
            reason: chain(&finding.fault),
            repaired: false,
            is_nameless: finding.is_nameless(),
        });
        Self {
            findings: findings.collect(),
            orphans: found.orphans.iter().map(|(name, _)| name.clone()).collect(),
            foreign: found.foreign.clone(),
            unauthorized_keys: found.findings.iter().filter_map(unauthorized_key).collect(),
            lacks_votes: found.findings.iter().any(lacks_votes),
            has_other_fault: found.findings.iter().any(|finding| {
                unauthorized_key(finding).is_none()
                    && !lacks_votes(finding)
                    && !finding.is_nameless()
            }),
            summary: VerifiedMirrorSummary {
                narinfos: found.narinfos,
                nars: found.nars,
                bytes: found.bytes,
                seconds: 0.0,
                faults: found.findings.len(),
                repaired: 0,
                orphan_bytes: found.orphans.iter().map(|(_, size)| size).sum(),
            },
        }
    }

    /// Notes that a repair has left only the `remaining` faults.
    pub(super) fn note_repairs(&mut self, remaining: &[MirrorFinding]) {
        let wrong: HashSet<&str> = remaining.iter().map(|it| it.file.as_str()).collect();
        for finding in &mut self.findings {
            finding.repaired = !wrong.contains(finding.file.as_str());
        }
        let findings = self.findings.iter();
        self.summary.repaired = findings.filter(|finding| finding.repaired).count();
    }

    /// How the run ends.
    pub(super) fn exit(&self) -> Exit {
        let left = self.findings.iter().filter(|finding| !finding.repaired);
        let exits = left.map(|finding| finding.status.exit());
        exits.max().unwrap_or(Exit::Done)
    }

    fn summary_text(&self) -> String {
        let VerifiedMirrorSummary {
            narinfos,
            nars,
            bytes: read,
            seconds,
            repaired,
            ..
        } = &self.summary;
        let items = count(*narinfos, "item", "items");
        let nars = count(*nars, "nar", "nars");
        let read = match read {
            0 => String::new(),
            read => format!(", {} read", bytes(*read)),
        };
        let counts = MirrorFaultStatus::ALL.map(|status| {
            let findings = self.findings.iter();
            (
                findings.filter(|it| it.status == status).count(),
                status.name(),
            )
        });
        let counts = counts.into_iter().filter(|(number, _)| *number > 0);
        let counts: Vec<String> = counts
            .map(|(number, name)| format!("{number} {name}"))
            .collect();
        let mut faults = match counts.is_empty() {
            true => "no fault found".to_owned(),
            false => counts.join(", "),
        };
        if *repaired > 0 {
            faults.push_str(&format!("; {repaired} repaired"));
        }
        format!("{items} and {nars} verified in {seconds:.1} s{read}: {faults}")
    }
}

/// Prints what was found.
///
/// # Errors
/// The output cannot be written.
pub(super) fn print(
    context: &Context,
    args: &MirrorVerifyArgs,
    view: &mut VerifiedMirror,
) -> Result<(), CliError> {
    view.summary.seconds = context.clock.elapsed().as_secs_f64();
    if context.settings.json {
        context.output.json(view)?;
    } else {
        let lines = view.findings.iter().map(line);
        context.output.lines(lines.map(Cow::Owned))?;
    }
    print_others(context, args, view);
    context.output.summary(&view.summary_text(), &view.summary);

    let mut left: Vec<&MirrorFindingView> = view.findings.iter().collect();
    left.retain(|finding| !finding.repaired);
    if left.iter().any(|finding| finding.is_nameless) {
        let note = format!("a narinfo does not say of which item it is: {COPY_AGAIN}");
        context.output.note(&note);
        left.retain(|finding| !finding.is_nameless);
    }
    if left.is_empty() {
        return Ok(());
    }
    if !args.repair {
        let command = again_with_flag(&context.settings.invocation.words, "--repair");
        let command = command.unwrap_or_else(|| "the same command with --repair".to_owned());
        if view.has_other_fault {
            context.output.note(&format!("{command} fetches it again"));
        }
        if view.lacks_votes {
            context.output.note(&format!(
                "{command} adds the signatures of more principals, where servers of --substitute-urls have them"
            ));
        }
        let keys = view.unauthorized_keys.iter().map(String::as_str);
        if keys.len() > 0 {
            let advice = context.settings.advice();
            context.output.note(&advice.trust_signer(keys));
        }
    } else {
        context.output.note(
            "what could not be repaired was left as it is: clients fetch such an item from another server; \
             one that may have it is named with --substitute-urls",
        );
    }
    Ok(())
}

/// Names what belongs to no item, which is no fault.
fn print_others(context: &Context, args: &MirrorVerifyArgs, view: &VerifiedMirror) {
    if !view.orphans.is_empty() {
        let nars = count(view.orphans.len(), "nar belongs", "nars belong");
        let size = bytes(view.summary.orphan_bytes);
        let gc = mirror_command("gc", &args.to, &context.settings.advice());
        context.output.note(&format!(
            "{nars} to no item ({size}); `{gc}` removes such nars when no client can need them"
        ));
    }
    if !view.foreign.is_empty() {
        let files = count(view.foreign.len(), "file is", "files are");
        context
            .output
            .note(&format!("{files} not part of a mirror, and left alone"));
    }
    if context.settings.verbosity >= Verbosity::Verbose {
        let names = view.orphans.iter().chain(&view.foreign);
        names.for_each(|name| context.output.note(&name.escape_debug().to_string()));
    }
}

/// The key of a narinfo that it is not authorized by.
fn unauthorized_key(finding: &MirrorFinding) -> Option<String> {
    match &finding.fault {
        MirrorFault::Unauthorized(Refusal::UnauthorizedKey { key }) => Some(key.clone()),
        _ => None,
    }
}

/// Whether too few principals have signed a narinfo.
fn lacks_votes(finding: &MirrorFinding) -> bool {
    let fault = &finding.fault;
    matches!(fault, MirrorFault::Unauthorized(Refusal::TooFewVotes(_)))
}

fn line(finding: &MirrorFindingView) -> String {
    let status = match finding.repaired {
        true => "repaired",
        false => finding.status.name(),
    };
    let file = finding.file.escape_debug();
    match &finding.item {
        Some(item) => format!("{status:<12}  {item}  {file}: {}", finding.reason),
        None => format!("{status:<12}  {file}  {}", finding.reason),
    }
}
