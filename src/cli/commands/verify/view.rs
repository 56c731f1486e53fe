//! What a verification found, as it is shown and as it is data for scripts.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::output::count;
use crate::format::error_text;
use crate::format::store_path::StoreDir;
use crate::store::verify::{
    AttributeFaults, EntryFault, EntryFinding, ItemFault, ItemFinding, StoreVerification,
    VerifyTally,
};

use super::repair::Repairs;

/// Everything that a verification found.
#[derive(Serialize)]
pub(super) struct VerifyView {
    pub(super) findings: Vec<FindingView>,
    pub(super) not_valid: Vec<String>,
    pub(super) unregistered: Vec<String>,
    pub(super) temporary: Vec<String>,
    pub(super) summary: VerifySummary,
}

/// One fault.
#[derive(Serialize)]
pub(super) struct FindingView {
    pub(super) path: String,
    pub(super) status: FindingStatus,
    pub(super) reason: String,
    /// Files below the item that are known to have the fault.
    pub(super) files: Vec<String>,
    /// Whether the fault is there no more.
    pub(super) repaired: bool,
}

/// The kind of a fault, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FindingStatus {
    /// The database is not sound.
    Database,
    /// The contents are not those of the hash.
    Damaged,
    /// A valid item has no tree.
    Missing,
    /// Something cannot be read.
    Unreadable,
    /// A mode, a time or an owner is wrong.
    Attributes,
}

impl FindingStatus {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::Database,
        Self::Damaged,
        Self::Missing,
        Self::Unreadable,
        Self::Attributes,
    ];

    /// The name for scripts and people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::Attributes => "attributes",
        }
    }

    /// The exit code while the fault is there.
    pub(super) fn exit(self) -> Exit {
        match self {
            Self::Database | Self::Unreadable => Exit::Local,
            Self::Damaged | Self::Missing | Self::Attributes => Exit::Refused,
        }
    }
}

/// The numbers of a verification.
#[derive(Debug, Clone, Serialize)]
pub(super) struct VerifySummary {
    pub(super) items: u64,
    pub(super) entries: u64,
    /// Bytes that were read.
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) faults: u64,
    pub(super) repaired: u64,
}

impl VerifyView {
    pub(super) fn new(
        context: &Context,
        found: &StoreVerification,
        repairs: &Repairs,
        tally: &VerifyTally,
    ) -> Self {
        let layout = &context.settings.layout;
        let store_dir = layout.store_dir();
        let database = found.database.iter().map(|fault| FindingView {
            path: layout.database_file().display().to_string(),
            status: FindingStatus::Database,
            reason: fault.clone(),
            files: Vec::new(),
            repaired: false,
        });
        let items = found
            .items
            .iter()
            .map(|finding| item_view(finding, repairs, store_dir));
        let entries = found
            .entries
            .iter()
            .map(|finding| entry_view(finding, repairs, store_dir));
        let mut findings: Vec<FindingView> = database.chain(items).chain(entries).collect();
        findings.sort_by_key(|finding| finding.status);

        let unregistered = found.unregistered.iter();
        let temporary = found.temporary.iter();
        let not_valid = found.not_valid.iter().map(|path| store_dir.full_name(path));
        Self {
            summary: VerifySummary {
                items: tally.items(),
                entries: tally.entries(),
                bytes: tally.bytes(),
                seconds: context.clock.elapsed().as_secs_f64(),
                faults: findings.len() as u64,
                repaired: findings.iter().filter(|finding| finding.repaired).count() as u64,
            },
            not_valid: not_valid.collect(),
            unregistered: unregistered.map(|name| in_store(store_dir, name)).collect(),
            temporary: temporary.map(|name| in_store(store_dir, name)).collect(),
            findings,
        }
    }

    /// How many faults of this kind there are.
    pub(super) fn count(&self, status: FindingStatus) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.status == status)
            .count()
    }

    /// How the run ends.
    pub(super) fn exit(&self) -> Exit {
        let not_valid = (!self.not_valid.is_empty()).then_some(Exit::NotAvailable);
        let faults = self.findings.iter().filter(|finding| !finding.repaired);
        let faults = faults.map(|finding| finding.status.exit());
        faults.chain(not_valid).max().unwrap_or(Exit::Done)
    }
}

/// The kind of a fault, the reason, and the files that have it.
type FaultView = (FindingStatus, String, Vec<PathBuf>);

fn item_view(finding: &ItemFinding, repairs: &Repairs, store_dir: &StoreDir) -> FindingView {
    let (status, reason, files) = match &finding.fault {
        ItemFault::Missing => {
            let reason = "it is registered, but there is nothing in the store directory";
            (FindingStatus::Missing, reason.to_owned(), Vec::new())
        }
        ItemFault::Contents { files } => {
            let reason = "its contents do not have the recorded hash";
            (FindingStatus::Damaged, reason.to_owned(), files.clone())
        }
        ItemFault::Unreadable { path, source } => {
            let reason = error_text::message(source);
            (FindingStatus::Unreadable, reason, vec![path.clone()])
        }
        ItemFault::Attributes(faults) => attributes_view(faults),
    };

    let named = files.iter().filter(|file| !file.as_os_str().is_empty());
    FindingView {
        path: store_dir.full_name(&finding.item.path),
        status,
        reason,
        files: named.map(|file| file.display().to_string()).collect(),
        repaired: repairs.has_item(&finding.item.path),
    }
}

fn entry_view(finding: &EntryFinding, repairs: &Repairs, store_dir: &StoreDir) -> FindingView {
    let (status, reason) = match &finding.fault {
        EntryFault::Name => (FindingStatus::Damaged, "its name is no hash".to_owned()),
        EntryFault::Contents => {
            let reason = "its contents do not have the hash that is its name";
            (FindingStatus::Damaged, reason.to_owned())
        }
        EntryFault::Unreadable(source) => (FindingStatus::Unreadable, error_text::message(source)),
        EntryFault::Attributes(faults) => {
            let (status, reason, _) = attributes_view(faults);
            (status, reason)
        }
    };
    FindingView {
        path: finding.full_name(store_dir),
        status,
        reason,
        files: Vec::new(),
        repaired: repairs.has_entry(&finding.name),
    }
}

/// Names the first fault and counts the others.
fn attributes_view(faults: &AttributeFaults) -> FaultView {
    let mut files: Vec<PathBuf> = faults.first.iter().map(|(path, _)| path.clone()).collect();
    files.dedup();
    let reason = faults.first.first().map(|(_, wrong)| wrong.to_string());
    let mut reason = reason.unwrap_or_default();
    if faults.count > 1 {
        let others = count(faults.count - 1, "other fault", "other faults");
        reason.push_str(&format!(" ({others} of attributes)"));
    }
    (FindingStatus::Attributes, reason, files)
}

fn in_store(store_dir: &StoreDir, name: &str) -> String {
    format!("{}/{name}", store_dir.as_str())
}
