//! The audit trail: one partition per user and month of the event, rows newest first.
//!
//! Which months a user has rows in is kept beside them in `decision_months`, written before the rows, so that a
//! reader finds every row without guessing how far back to look. A month's row lives a day longer than its decisions
//! and is written again at least once a day while decisions come.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use scylla::value::CqlTimestamp;

use super::failure::{page_error, pager_error, unreadable};
use super::{ScyllaStore, StoreError};
use crate::store::{AuditQuery, AuditRow, AuditStore, audit_row, check_user_id};

/// How long a month that was written is not written again; also how much longer its row lives than the decisions.
const MONTH_REFRESH: Duration = Duration::from_secs(86_400);
/// Months remembered as written; beyond that all are forgotten, which costs writes and nothing else.
const MAX_KNOWN_MONTHS: usize = 100_000;
/// The longest time to live of a cell: 20 years, in both databases.
const MAX_TTL_S: u64 = 630_720_000;

/// The time to live in the unit of CQL, with room for the longer life of a month's row.
pub(super) fn ttl_s(ttl: Duration) -> i32 {
    let bounded = ttl.as_secs().clamp(1, MAX_TTL_S - 2 * MONTH_REFRESH.as_secs());
    i32::try_from(bounded).unwrap_or(i32::MAX)
}

/// Months that this process has written lately.
#[derive(Default)]
pub(super) struct KnownMonths {
    written: Mutex<Written>,
}

/// User id and month.
type UserMonth = (String, i32);

#[derive(Default)]
struct Written {
    since: Option<Instant>,
    months: BTreeSet<UserMonth>,
}

impl KnownMonths {
    /// Forgets everything once it is old or too much, then leaves only the unknown in `months`.
    fn retain_unknown(&self, months: &mut BTreeSet<UserMonth>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let old = written.since.is_none_or(|since| since.elapsed() >= MONTH_REFRESH);
        if old || written.months.len() > MAX_KNOWN_MONTHS {
            *written = Written { since: Some(Instant::now()), months: BTreeSet::new() };
        }
        months.retain(|month| !written.months.contains(month));
    }

    fn add(&self, months: BTreeSet<UserMonth>) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).months.extend(months);
    }
}

/// The month of a time in UTC, such as 202601; times beyond the calendar fall into its first or last month.
fn month(time_ms: i64) -> i32 {
    let beyond = if time_ms < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let time = jiff::Timestamp::from_millisecond(time_ms).unwrap_or(beyond);
    let date = time.to_zoned(jiff::tz::TimeZone::UTC).date();
    i32::from(date.year()) * 100 + i32::from(date.month())
}

impl ScyllaStore {
    async fn insert_month(&self, user_id: &str, month: i32) -> Result<(), StoreError> {
        let ttl_s = self.audit_ttl_s.saturating_add(2 * MONTH_REFRESH.as_secs() as i32);
        self.request(&self.statements.insert_month, (user_id, month, ttl_s)).await.map(drop)
    }

    async fn insert_decision(&self, row: &AuditRow) -> Result<(), StoreError> {
        let decision = &row.decision;
        let values = (
            decision.user_id.as_str(),
            month(decision.occurred_at_ms),
            CqlTimestamp(decision.occurred_at_ms),
            decision.decision_id,
            decision.event_id.as_str(),
            decision.campaign_id.as_str(),
            audit_row::name(decision.outcome),
            audit_row::name(decision.reason.code),
            audit_row::encode(row),
            self.audit_ttl_s,
        );
        self.request(&self.statements.insert_decision, values).await.map(drop)
    }

    /// Months of the user that have rows, the latest first.
    async fn months(&self, user_id: &str) -> Result<Vec<i32>, StoreError> {
        let rows = self.rows(&self.statements.read_months, (user_id,)).await?;
        let months = rows.rows::<(i32,)>().map_err(|error| unreadable(&error))?;
        months.map(|row| row.map(|(month,)| month).map_err(|error| unreadable(&error))).collect()
    }

    /// Appends the rows of one month that the query asks for, until its limit.
    async fn read_month(
        &self,
        query: &AuditQuery,
        month: i32,
        oldest_ms: i64,
        newest_ms: i64,
        found: &mut Vec<AuditRow>,
    ) -> Result<(), StoreError> {
        let _slot = self.slot().await?;
        let values = (query.user_id.as_str(), month, CqlTimestamp(oldest_ms), CqlTimestamp(newest_ms));
        let pager = self
            .session
            .execute_iter(self.statements.read_decisions.clone(), values)
            .await
            .map_err(|error| pager_error(&error))?;
        let mut lines = pager.rows_stream::<(String,)>().map_err(|error| unreadable(&error))?;
        while found.len() < query.limit
            && let Some((line,)) = lines.try_next().await.map_err(|error| page_error(&error))?
        {
            let row = audit_row::decode(line.as_bytes()).map_err(StoreError::Refused)?;
            if audit_row::matches(&row, query) {
                found.push(row);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl AuditStore for ScyllaStore {
    async fn insert_audit(&self, rows: &[AuditRow]) -> Result<(), StoreError> {
        let mut months = BTreeSet::new();
        for row in rows {
            check_user_id(&row.decision.user_id)?;
            months.insert((row.decision.user_id.clone(), month(row.decision.occurred_at_ms)));
        }
        self.known_months.retain_unknown(&mut months);
        let mut pending = FuturesUnordered::new();
        for (user_id, month) in &months {
            if pending.len() >= self.requests_in_flight
                && let Some(written) = pending.next().await
            {
                written?;
            }
            pending.push(self.insert_month(user_id, *month));
        }
        while let Some(written) = pending.next().await {
            written?;
        }
        drop(pending);
        self.known_months.add(months);

        let mut pending = FuturesUnordered::new();
        for row in rows {
            if pending.len() >= self.requests_in_flight
                && let Some(written) = pending.next().await
            {
                written?;
            }
            pending.push(self.insert_decision(row));
        }
        while let Some(written) = pending.next().await {
            written?;
        }
        Ok(())
    }

    async fn read_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        check_user_id(&query.user_id)?;
        let oldest_ms = query.since_ms.unwrap_or(i64::MIN);
        let newest_ms = match query.until_ms {
            None => i64::MAX,
            Some(until_ms) => until_ms.saturating_sub(1),
        };
        let mut found = Vec::new();
        if oldest_ms > newest_ms || query.until_ms == Some(i64::MIN) {
            return Ok(found);
        }
        for month in self.months(&query.user_id).await? {
            if found.len() >= query.limit {
                break;
            }
            if (self::month(oldest_ms)..=self::month(newest_ms)).contains(&month) {
                self.read_month(query, month, oldest_ms, newest_ms, &mut found).await?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_the_calendar_and_the_order_of_time() {
        assert_eq!(month(1_769_903_999_999), 202_601);
        assert_eq!(month(1_769_904_000_000), 202_602);
        assert_eq!(month(-1), 196_912);
        let times = [i64::MIN, -62_135_596_800_001, -62_135_596_800_000, -1, 0, 4_102_444_800_000, i64::MAX];
        assert!(times.map(month).is_sorted());
    }

    #[test]
    fn a_month_is_written_once_until_it_is_forgotten() {
        let known = KnownMonths::default();
        let months = || BTreeSet::from([("u".to_owned(), 202_601)]);
        let mut first = months();
        known.retain_unknown(&mut first);
        assert_eq!(first, months());
        known.add(first);
        let mut second = months();
        known.retain_unknown(&mut second);
        assert!(second.is_empty());
        known.add((0..=MAX_KNOWN_MONTHS as i32).map(|month| ("u".to_owned(), month)).collect());
        let mut third = months();
        known.retain_unknown(&mut third);
        assert_eq!(third, months());
    }

    #[test]
    fn a_time_to_live_stays_within_what_cql_takes() {
        assert_eq!(ttl_s(Duration::from_secs(86_400)), 86_400);
        assert_eq!(ttl_s(Duration::ZERO), 1, "0 would mean for ever");
        assert!(u64::try_from(ttl_s(Duration::MAX)).unwrap() + 2 * MONTH_REFRESH.as_secs() <= MAX_TTL_S);
    }
}
