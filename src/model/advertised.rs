//! What a relay says of itself (NIP-11), as far as relay monitors repeat it (NIP-66).

use std::collections::BTreeSet;

/// Abilities and demands. A demand of which the relay says nothing is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// `supported_nips`, the numbered ones.
    pub nips: BTreeSet<u16>,
    /// `limitation.auth_required`: nothing is answered before NIP-42.
    pub auth: Option<bool>,
    /// `limitation.payment_required`.
    pub payment: Option<bool>,
    /// `limitation.restricted_writes`: a condition has to be met before events are taken.
    pub writes: Option<bool>,
    /// `limitation.min_pow_difficulty` above 0 (NIP-13).
    pub pow: Option<bool>,
}
