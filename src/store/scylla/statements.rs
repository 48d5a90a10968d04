//! The prepared statements. All values are bound; the keyspace is a checked name.

use std::sync::Arc;

use scylla::client::session::Session;
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

use super::failure::prepare_error;
use crate::store::StoreError;

/// Rows of the audit trail in one page of an answer.
const AUDIT_PAGE_ROWS: i32 = 500;

pub(super) struct Statements {
    /// `user_id` -> `state`.
    pub load_cell: PreparedStatement,
    /// `user_id`, `state`, timestamp.
    pub write_cell: PreparedStatement,
    /// `topic`, `partition_id` -> the row.
    pub read_fence: PreparedStatement,
    /// All columns of the row.
    pub insert_fence: PreparedStatement,
    /// The columns behind the key, the key, the expected fence and token.
    pub update_fence: PreparedStatement,
    /// `user_id`, `month`, time to live.
    pub insert_month: PreparedStatement,
    /// `user_id` -> `month`, the latest first.
    pub read_months: PreparedStatement,
    /// All columns of the row, time to live.
    pub insert_decision: PreparedStatement,
    /// `user_id`, `month`, first and last time -> `decision`, newest first.
    pub read_decisions: PreparedStatement,
}

impl Statements {
    pub async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let prepare = async |cql: &str| {
            let statement = session.prepare(cql).await.map_err(|error| prepare_error(&error))?;
            if statement.is_token_aware() {
                Ok(statement)
            } else {
                Err(StoreError::Refused(format!("a partition key value of {cql:?} is not bound")))
            }
        };
        let idempotent = async |cql: String| {
            let mut statement: PreparedStatement = prepare(&cql).await?;
            statement.set_is_idempotent(true);
            Ok::<_, StoreError>(statement)
        };
        // The outcome of a lightweight transaction that timed out is unknown. Trying it again would find its own row
        // and call it somebody else's, so nobody but `fence::replace` decides what is done then.
        let conditional = async |cql: String| {
            let mut statement: PreparedStatement = prepare(&cql).await?;
            statement.set_is_idempotent(false);
            statement.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
            Ok::<_, StoreError>(statement)
        };

        let mut read_fence = idempotent(format!(
            "SELECT fence_us, owner_token, cluster_id, partition_count, incarnation, committed_offset, \
             retry_offsets, local_datacenter FROM {keyspace}.partition_fence WHERE topic = ? AND partition_id = ?"
        ))
        .await?;
        // Serial: it finishes a lightweight transaction that is under way, so its outcome is known afterwards.
        read_fence.set_consistency(Consistency::Serial);
        let mut read_decisions = idempotent(format!(
            "SELECT decision FROM {keyspace}.decisions \
             WHERE user_id = ? AND month = ? AND occurred_at >= ? AND occurred_at <= ?"
        ))
        .await?;
        read_decisions.set_page_size(AUDIT_PAGE_ROWS);

        Ok(Self {
            load_cell: idempotent(format!("SELECT state FROM {keyspace}.users WHERE user_id = ?")).await?,
            write_cell: idempotent(format!(
                "INSERT INTO {keyspace}.users (user_id, state) VALUES (?, ?) USING TIMESTAMP ?"
            ))
            .await?,
            read_fence,
            insert_fence: conditional(format!(
                "INSERT INTO {keyspace}.partition_fence (topic, partition_id, fence_us, owner_token, cluster_id, \
                 partition_count, incarnation, committed_offset, retry_offsets, local_datacenter) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS"
            ))
            .await?,
            update_fence: conditional(format!(
                "UPDATE {keyspace}.partition_fence SET fence_us = ?, owner_token = ?, cluster_id = ?, \
                 partition_count = ?, incarnation = ?, committed_offset = ?, retry_offsets = ?, local_datacenter = ? \
                 WHERE topic = ? AND partition_id = ? IF fence_us = ? AND owner_token = ?"
            ))
            .await?,
            insert_month: idempotent(format!(
                "INSERT INTO {keyspace}.decision_months (user_id, month) VALUES (?, ?) USING TTL ?"
            ))
            .await?,
            read_months: idempotent(format!("SELECT month FROM {keyspace}.decision_months WHERE user_id = ?")).await?,
            insert_decision: idempotent(format!(
                "INSERT INTO {keyspace}.decisions (user_id, month, occurred_at, decision_id, event_id, campaign_id, \
                 outcome, reason, decision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TTL ?"
            ))
            .await?,
            read_decisions,
        })
    }
}
