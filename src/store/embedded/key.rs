//! Keys of the embedded tables. Their byte order is the order the tables are read in.

use std::ops::RangeInclusive;

use fjall::Slice;

use crate::decision::Decision;
use crate::store::{MAX_USER_ID_BYTES, StoreError, check_user_id};

/// Time and decision id behind the user id of an audit key.
const AUDIT_SUFFIX_BYTES: usize = 8 + 16;
const _: () = assert!(
    2 + MAX_USER_ID_BYTES + AUDIT_SUFFIX_BYTES <= u16::MAX as usize,
    "the longest key of the library"
);

/// Key of a user's cell.
pub(super) fn user(user_id: &str) -> Result<Slice, StoreError> {
    check_user_id(user_id)?;
    Ok(user_id.as_bytes().into())
}

/// Key of a fence row. A topic's name has no NUL.
pub(super) fn fence(topic: &str, partition: i32) -> Vec<u8> {
    let mut key = topic.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&partition.to_be_bytes());
    key
}

/// Key of an audit row: user, newest event first, decision id.
pub(super) fn audit(decision: &Decision) -> Result<Slice, StoreError> {
    let mut key = audit_prefix(&decision.user_id)?;
    key.extend_from_slice(&newest_first(decision.occurred_at_ms));
    key.extend_from_slice(decision.decision_id.as_bytes());
    Ok(key.into())
}

/// Keys of a user's audit rows with `since_ms <= occurred_at < until_ms`, `None` when no time fits.
pub(super) fn audit_range(
    user_id: &str,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
) -> Result<Option<RangeInclusive<Vec<u8>>>, StoreError> {
    let newest = match until_ms {
        None => i64::MAX,
        Some(i64::MIN) => return Ok(None),
        Some(until) => until - 1,
    };
    let oldest = since_ms.unwrap_or(i64::MIN);
    if oldest > newest {
        return Ok(None);
    }
    let prefix = audit_prefix(user_id)?;
    let key =
        |time_ms, decision_id: [u8; 16]| [prefix.as_slice(), &newest_first(time_ms), &decision_id].concat();
    Ok(Some(key(newest, [0; 16])..=key(oldest, [u8::MAX; 16])))
}

/// The length in front keeps `ab` apart from `a` followed by a time that begins with `b`.
fn audit_prefix(user_id: &str) -> Result<Vec<u8>, StoreError> {
    check_user_id(user_id)?;
    let mut key = Vec::with_capacity(2 + user_id.len() + AUDIT_SUFFIX_BYTES);
    key.extend_from_slice(&(user_id.len() as u16).to_be_bytes());
    key.extend_from_slice(user_id.as_bytes());
    Ok(key)
}

/// Bytes that sort a later time before an earlier one, negative times included.
fn newest_first(time_ms: i64) -> [u8; 8] {
    (!(time_ms as u64 ^ (1 << 63))).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_times_sort_first() {
        let times = [i64::MAX, 1_700_000_000_000, 1, 0, -1, -1_700_000_000_000, i64::MIN];
        assert!(times.map(newest_first).is_sorted());
    }

    #[test]
    fn a_user_id_that_no_key_can_hold_is_refused() {
        assert!(user("").is_err());
        assert!(user(&"x".repeat(MAX_USER_ID_BYTES)).is_ok());
        assert!(audit_prefix(&"x".repeat(MAX_USER_ID_BYTES + 1)).is_err());
    }

    #[test]
    fn a_range_that_holds_no_time_is_empty() {
        assert!(audit_range("u", Some(5), Some(5)).unwrap().is_none());
        assert!(audit_range("u", None, Some(i64::MIN)).unwrap().is_none());
        assert!(audit_range("u", Some(5), Some(6)).unwrap().is_some());
    }
}
