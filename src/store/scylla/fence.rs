//! Taking and reading a fence (rule F1).

use std::collections::BTreeMap;

use scylla::value::{CqlValue, Row};
use uuid::Uuid;

use super::failure::unreadable;
use super::{ScyllaStore, StoreError};
use crate::store::FenceRow;

type Columns = (i64, Uuid, String, i32, i64, Option<i64>, Option<BTreeMap<i32, i64>>, Option<String>);

pub(super) async fn read(
    store: &ScyllaStore,
    topic: &str,
    partition: i32,
) -> Result<Option<FenceRow>, StoreError> {
    let rows = store.rows(&store.statements.read_fence, (topic, partition)).await?;
    let Some(columns) = rows.maybe_first_row::<Columns>().map_err(|error| unreadable(&error))? else {
        return Ok(None);
    };
    let (fence_us, token, cluster_id, partition_count, incarnation, committed_offset, tiers, datacenter) =
        columns;
    check_datacenter(datacenter, &store.local_datacenter)?;
    let incarnation = u32::try_from(incarnation).map_err(|error| unreadable(&error))?;
    let retry_offsets = tiers
        .unwrap_or_default()
        .into_iter()
        .map(|(tier, offset)| Ok((u8::try_from(tier).map_err(|error| unreadable(&error))?, offset)))
        .collect::<Result<_, StoreError>>()?;
    Ok(Some(FenceRow {
        fence_us,
        token,
        cluster_id,
        partition_count,
        incarnation,
        committed_offset,
        retry_offsets,
    }))
}

/// LOCAL_QUORUM in two datacenters would be two truths (rule F4).
fn check_datacenter(stored: Option<String>, ours: &str) -> Result<(), StoreError> {
    match stored {
        Some(stored) if stored != ours => Err(StoreError::Refused(format!(
            "the other instances keep their states in datacenter {stored}, this one in {ours}: set \
             store.scylla.local_datacenter to the same one in all of them"
        ))),
        _ => Ok(()),
    }
}

pub(super) async fn replace(
    store: &ScyllaStore,
    topic: &str,
    partition: i32,
    expected: Option<&FenceRow>,
    next: &FenceRow,
) -> Result<(), StoreError> {
    // What the lightweight transaction could not say; `None` when it said no.
    let unknown = match attempt(store, topic, partition, expected, next).await {
        Ok(true) => return Ok(()),
        Ok(false) => None,
        Err(StoreError::Unavailable(cause)) => Some(cause),
        Err(other) => return Err(other),
    };
    let current = read(store, topic, partition).await?;
    judge(topic, partition, current.as_ref(), expected, next, unknown)
}

/// What the row that stands there says of an attempt that was not acknowledged.
fn judge(
    topic: &str,
    partition: i32,
    current: Option<&FenceRow>,
    expected: Option<&FenceRow>,
    next: &FenceRow,
    unknown: Option<String>,
) -> Result<(), StoreError> {
    // Our token stands there: this attempt or an earlier one of the same call was applied. All columns are compared,
    // because an owner who records a position keeps his token.
    if current == Some(next) {
        return Ok(());
    }
    let as_expected = match (current, expected) {
        (None, None) => true,
        (Some(current), Some(expected)) => current.same_owner(expected),
        _ => false,
    };
    match unknown {
        // Not applied yet, but a coordinator may still hold it: only the same call again can tell.
        Some(cause) if as_expected => Err(StoreError::Unavailable(cause)),
        _ => Err(StoreError::Fenced { topic: topic.to_owned(), partition }),
    }
}

/// One lightweight transaction; whether it was applied.
async fn attempt(
    store: &ScyllaStore,
    topic: &str,
    partition: i32,
    expected: Option<&FenceRow>,
    next: &FenceRow,
) -> Result<bool, StoreError> {
    let incarnation = i64::from(next.incarnation);
    let retry_offsets: BTreeMap<i32, i64> =
        next.retry_offsets.iter().map(|(tier, offset)| (i32::from(*tier), *offset)).collect();
    let rows = match expected {
        None => {
            let values = (
                topic,
                partition,
                next.fence_us,
                next.token,
                next.cluster_id.as_str(),
                next.partition_count,
                incarnation,
                next.committed_offset,
                &retry_offsets,
                &store.local_datacenter,
            );
            store.rows(&store.statements.insert_fence, values).await?
        }
        Some(expected) => {
            let values = (
                next.fence_us,
                next.token,
                next.cluster_id.as_str(),
                next.partition_count,
                incarnation,
                next.committed_offset,
                &retry_offsets,
                &store.local_datacenter,
                topic,
                partition,
                expected.fence_us,
                expected.token,
            );
            store.rows(&store.statements.update_fence, values).await?
        }
    };
    // `[applied]` comes first; what follows differs between the databases and between yes and no.
    let row = rows.first_row::<Row>().map_err(|error| unreadable(&error))?;
    match row.columns.first() {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        other => Err(unreadable(&format!("a lightweight transaction answered {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(token: u128, fence_us: i64) -> FenceRow {
        FenceRow {
            fence_us,
            token: Uuid::from_u128(token),
            cluster_id: "c".to_owned(),
            partition_count: 1,
            incarnation: 0,
            committed_offset: None,
            retry_offsets: BTreeMap::new(),
        }
    }

    fn judged(
        current: Option<&FenceRow>,
        expected: Option<&FenceRow>,
        next: &FenceRow,
        timed_out: bool,
    ) -> String {
        match judge("events", 0, current, expected, next, timed_out.then(|| "time-out".to_owned())) {
            Ok(()) => "taken".to_owned(),
            Err(StoreError::Fenced { .. }) => "fenced".to_owned(),
            Err(other) => other.to_string(),
        }
    }

    #[test]
    fn a_timed_out_attempt_is_judged_by_the_token_that_stands_there() {
        let (old, mine, theirs) = (row(1, 10), row(2, 20), row(3, 20));
        assert_eq!(judged(Some(&mine), Some(&old), &mine, true), "taken");
        assert_eq!(
            judged(Some(&theirs), Some(&old), &mine, true),
            "fenced",
            "the same number by another owner"
        );
        assert_eq!(judged(Some(&old), Some(&old), &mine, true), "the store is unavailable: time-out");
        assert_eq!(judged(None, None, &mine, true), "the store is unavailable: time-out");
        assert_eq!(judged(Some(&theirs), None, &mine, true), "fenced");
    }

    #[test]
    fn a_refused_attempt_is_fenced_unless_our_own_row_stands_there() {
        let (old, mine, theirs) = (row(1, 10), row(2, 20), row(3, 20));
        assert_eq!(judged(Some(&mine), Some(&old), &mine, false), "taken");
        assert_eq!(judged(Some(&theirs), Some(&old), &mine, false), "fenced");
        assert_eq!(judged(None, Some(&old), &mine, false), "fenced");
    }

    #[test]
    fn another_datacenter_is_refused_with_what_to_do() {
        assert!(check_datacenter(None, "a").is_ok());
        assert!(check_datacenter(Some("a".to_owned()), "a").is_ok());
        let refused = check_datacenter(Some("b".to_owned()), "a").unwrap_err().to_string();
        assert!(refused.contains("datacenter b") && refused.contains("local_datacenter"), "{refused}");
    }

    #[test]
    fn recording_a_position_is_not_taken_for_done_because_the_token_is_the_same() {
        let mine = row(2, 20);
        let further = FenceRow { committed_offset: Some(7), ..mine.clone() };
        assert_eq!(judged(Some(&mine), Some(&mine), &further, true), "the store is unavailable: time-out");
        assert_eq!(judged(Some(&further), Some(&mine), &further, true), "taken");
    }
}
