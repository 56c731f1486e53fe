//! In what the builds of an item differ: one comparison for each hash that is not the reference's.

use crate::format::hash::NarHash;
use crate::store::Store;
use crate::substitute::challenge::{
    ComparedNar, NarComparison, Reference, ServerNar, compare_nars,
};

use super::challenged::{BuildDifferences, ChallengedItem};

/// Finds in what the builds that servers have of `item` differ from its reference.
pub(super) fn find_differences(
    comparison: &NarComparison<'_>,
    store: Option<&Store>,
    item: &ChallengedItem,
) -> Vec<BuildDifferences> {
    let Some(first) = reference_nar(store, item) else {
        return Vec::new();
    };

    let mut compared: Vec<NarHash> = item.reference.iter().map(|it| it.hash()).collect();
    let mut all = Vec::new();
    for (server, claim) in item.claims.enumerated() {
        let Ok(narinfo) = claim else { continue };
        if compared.contains(&narinfo.nar_hash()) {
            continue;
        }

        compared.push(narinfo.nar_hash());
        let second = ServerNar { server, narinfo };
        let found = compare_nars(comparison, first, second);
        all.push(BuildDifferences { server, found });
    }
    all
}

/// The nar that the others are compared with.
fn reference_nar<'a>(
    store: Option<&'a Store>,
    item: &'a ChallengedItem,
) -> Option<ComparedNar<'a>> {
    match item.reference? {
        Reference::Local(_) => Some(ComparedNar::Local(store?, &item.item)),
        Reference::Server(server, _) => {
            let narinfo = item.claims[server].as_ref().ok()?;
            Some(ComparedNar::Server(ServerNar { server, narinfo }))
        }
    }
}
