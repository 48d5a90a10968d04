//! The id of a decision: the same on every replay, different for every user, event and campaign.

use uuid::Uuid;

/// Namespace of decision ids, made once for this purpose; it never changes.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x8c5d_1b7e_42f0_4a6b_9e3a_6d0f_51c2_a7e4);

/// UUIDv5 over the three ids, each behind its length in bytes as 32 bits, big endian: so that `ab` + `c` is not
/// `a` + `bc`.
pub fn decision_id(user_id: &str, event_id: &str, campaign_id: &str) -> Uuid {
    let parts = [user_id, event_id, campaign_id];
    let mut name = Vec::with_capacity(parts.iter().map(|part| part.len().saturating_add(4)).sum());
    for part in parts {
        // Ids are bounded far below 4 GiB.
        name.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_pinned() {
        let id = decision_id("u1", "e1", "gold_purchase");
        assert_eq!(id.to_string(), "1872b03c-dbd9-5eec-86db-c1a5bc9ede53");
    }

    #[test]
    fn neighbouring_parts_are_not_confused() {
        assert_ne!(decision_id("ab", "c", "d"), decision_id("a", "bc", "d"));
        assert_ne!(decision_id("a", "b", "cd"), decision_id("a", "bc", "d"));
        assert_ne!(decision_id("", "a", "b"), decision_id("a", "", "b"));
    }
}
