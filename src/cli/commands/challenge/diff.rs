//! In what the builds of an item differ: one comparison for each hash that is not the reference's.

use crate::format::hash::NarHash;
use crate::store::Store;
use crate::substitute::challenge::{
    ComparedNar, InspectedBuild, LocalHash, LocalNar, NarComparison, Reference, ServerNar,
};

use super::challenged::BuildDifferences;

/// Finds in what the builds that servers have of an item differ from its `reference`.
pub(super) fn find_differences(
    comparison: &NarComparison<'_>,
    store: Option<&Store>,
    inspected: &InspectedBuild<'_>,
    reference: Reference,
) -> Vec<BuildDifferences> {
    let Some(first) = reference_nar(store, inspected, reference) else {
        return Vec::new();
    };

    let mut compared: Vec<NarHash> = vec![reference.hash()];
    let mut all = Vec::new();
    for (server, claim) in inspected.claims.enumerated() {
        let Ok(claim) = claim else { continue };
        if compared.contains(&claim.nar_hash) {
            continue;
        }

        compared.push(claim.nar_hash);
        let found = comparison.differences(first, ServerNar { server, claim });
        all.push(BuildDifferences { server, found });
    }
    all
}

/// The nar that the others are compared with.
fn reference_nar<'a>(
    store: Option<&'a Store>,
    inspected: &'a InspectedBuild<'_>,
    reference: Reference,
) -> Option<ComparedNar<'a>> {
    match (reference, &inspected.local) {
        (Reference::Local(_), LocalHash::Hashed { nar_size, .. }) => {
            Some(ComparedNar::Local(LocalNar {
                store: store?,
                item: &inspected.build.item,
                nar_size: *nar_size,
            }))
        }
        (Reference::Local(_), _) => None,
        (Reference::Server(server, _), _) => {
            let claim = inspected.claims[server].as_ref().ok()?;
            Some(ComparedNar::Server(ServerNar { server, claim }))
        }
    }
}
