//! The store in ScyllaDB, or in Cassandra, by CQL that is valid on both.
//!
//! - Every cell is written `USING TIMESTAMP`, so that of two owners the newer one wins whatever arrives last; there is
//!   no condition per event. Only the fence uses lightweight transactions, and its table has no other kind of write.
//! - Reads and writes use LOCAL_QUORUM of one datacenter, the same for all instances; the fence is taken and read with
//!   SERIAL, across datacenters.
//! - Requests in flight are bounded over all callers together: a connection takes 32,768 at most, and a database that
//!   is asked more than it can answer only gets slower.
//! - A time-out is [`StoreError::Unavailable`]: the write may have been applied. Every statement but the fence's is
//!   idempotent and may be repeated, by the driver on another node and by the caller.
//!
//! Tables come from [`migrate`](super::migrate); nothing is created here.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use super::{Cell, FenceRow, StateStore, StoreError, check_user_id, migrate};

mod audit;
pub(super) mod failure;
mod fence;
mod statements;

use audit::KnownMonths;
use failure::{connect_error, request_error, unreadable};
use statements::Statements;

/// How to reach the cluster and how to use it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nodes to begin with, `host:port`.
    pub nodes: Vec<String>,
    /// Keyspace: lower case letters, digits and underscores.
    pub keyspace: String,
    /// The datacenter that all instances use.
    pub local_datacenter: String,
    /// Copies of each row in the local datacenter, used when the keyspace is created.
    pub replication_factor: u64,
    /// User and password, when the cluster asks for them.
    pub credentials: Option<(String, SecretString)>,
    /// Requests in flight at a time, all callers together.
    pub requests_in_flight: usize,
    /// Longest wait for one request.
    pub request_timeout: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// How long audit rows are kept.
    pub audit_ttl: Duration,
}

/// The store in a cluster. One session serves all callers.
pub struct ScyllaStore {
    session: Session,
    statements: Statements,
    in_flight: Semaphore,
    requests_in_flight: usize,
    audit_ttl_s: i32,
    local_datacenter: String,
    known_months: KnownMonths,
}

impl ScyllaStore {
    /// Connects, checks that the tables are those of this version, and prepares the statements.
    pub async fn connect(settings: &Settings) -> Result<Self, StoreError> {
        let session = connect(settings).await?;
        migrate::check(&session, &settings.keyspace).await?;
        let statements = Statements::prepare(&session, &settings.keyspace).await?;
        let requests_in_flight = settings.requests_in_flight.max(1);
        Ok(Self {
            session,
            statements,
            in_flight: Semaphore::new(requests_in_flight),
            requests_in_flight,
            audit_ttl_s: audit::ttl_s(settings.audit_ttl),
            local_datacenter: settings.local_datacenter.clone(),
            known_months: KnownMonths::default(),
        })
    }

    /// Runs one request within the bound of requests in flight.
    async fn request(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryResult, StoreError> {
        let _slot = self.slot().await?;
        self.session.execute_unpaged(statement, values).await.map_err(|error| request_error(&error))
    }

    async fn rows(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, StoreError> {
        self.request(statement, values).await?.into_rows_result().map_err(|error| unreadable(&error))
    }

    async fn slot(&self) -> Result<tokio::sync::SemaphorePermit<'_>, StoreError> {
        self.in_flight
            .acquire()
            .await
            .map_err(|_| StoreError::Unavailable("the session to the database is closed".to_owned()))
    }

    async fn load_cell(&self, user_id: &str) -> Result<Option<Bytes>, StoreError> {
        check_user_id(user_id)?;
        let rows = self.rows(&self.statements.load_cell, (user_id,)).await?;
        let cell = rows.maybe_first_row::<(Option<Bytes>,)>().map_err(|error| unreadable(&error))?;
        Ok(cell.and_then(|(state,)| state))
    }

    async fn write_cell(&self, cell: &Cell) -> Result<(), StoreError> {
        check_user_id(&cell.user_id)?;
        let values = (cell.user_id.as_str(), cell.bytes.as_ref(), cell.timestamp_us);
        self.request(&self.statements.write_cell, values).await.map(drop)
    }
}

/// Opens a session and checks that the local datacenter exists.
pub(super) async fn connect(settings: &Settings) -> Result<Session, StoreError> {
    check_keyspace_name(&settings.keyspace)?;
    let policy = DefaultPolicy::builder()
        .prefer_datacenter(settings.local_datacenter.clone())
        .token_aware(true)
        // Another datacenter's LOCAL_QUORUM would not see this one's writes.
        .permit_dc_failover(false)
        .build();
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::Serial))
        .request_timeout(Some(settings.request_timeout))
        .load_balancing_policy(policy)
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&settings.nodes)
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(settings.connect_timeout)
        .schema_agreement_timeout(migrate::SCHEMA_TIMEOUT)
        // Routing needs this keyspace's replication; a shared cluster's other keyspaces are none of our business.
        .keyspaces_to_fetch([settings.keyspace.clone()])
        .fetch_full_schema_metadata(false);
    if let Some((user, password)) = &settings.credentials {
        builder = builder.user(user, password.expose_secret());
    }
    let session = builder.build().await.map_err(|error| connect_error(&error, &settings.nodes))?;
    check_datacenter(&session, &settings.local_datacenter)?;
    Ok(session)
}

fn check_datacenter(session: &Session, wanted: &str) -> Result<(), StoreError> {
    let state = session.get_cluster_state();
    let mut known: Vec<&str> =
        state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
    known.sort_unstable();
    known.dedup();
    if known.contains(&wanted) {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "the cluster has no datacenter {wanted:?} but {}; set store.scylla.local_datacenter to the one that all instances use",
        known.join(", ")
    )))
}

/// A name that needs no quoting, because it is written into statements.
fn check_keyspace_name(name: &str) -> Result<(), StoreError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let begins_well = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if begins_well && name.len() <= 48 && name.bytes().all(plain) {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "store.scylla.keyspace {name:?} must be a lower case letter, then lower case letters, digits and underscores, 48 at most"
    )))
}

#[async_trait]
impl StateStore for ScyllaStore {
    async fn load(&self, user_ids: &[&str]) -> Vec<Result<Option<Bytes>, StoreError>> {
        let reads: Vec<_> = user_ids.iter().map(|user_id| self.load_cell(user_id)).collect();
        futures::stream::iter(reads).buffered(self.requests_in_flight).collect().await
    }

    async fn write(&self, cells: &[Cell]) -> Result<(), StoreError> {
        let mut pending = FuturesUnordered::new();
        for cell in cells {
            if pending.len() >= self.requests_in_flight
                && let Some(written) = pending.next().await
            {
                written?;
            }
            pending.push(self.write_cell(cell));
        }
        while let Some(written) = pending.next().await {
            written?;
        }
        Ok(())
    }

    async fn clock_ms(&self) -> Result<Option<i64>, StoreError> {
        let _slot = self.slot().await?;
        let asked = "SELECT toUnixTimestamp(now()) FROM system.local";
        let answer = self.session.query_unpaged(asked, ()).await.map_err(|error| request_error(&error))?;
        let rows = answer.into_rows_result().map_err(|error| unreadable(&error))?;
        let (now_ms,) = rows.first_row::<(i64,)>().map_err(|error| unreadable(&error))?;
        Ok(Some(now_ms))
    }

    async fn read_fence(&self, topic: &str, partition: i32) -> Result<Option<FenceRow>, StoreError> {
        fence::read(self, topic, partition).await
    }

    async fn replace_fence(
        &self,
        topic: &str,
        partition: i32,
        expected: Option<&FenceRow>,
        next: &FenceRow,
    ) -> Result<(), StoreError> {
        fence::replace(self, topic, partition, expected, next).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyspace_name_that_needs_quoting_is_refused() {
        assert!(check_keyspace_name("campaignd_2").is_ok());
        for name in ["", "2campaignd", "_x", "Campaignd", "a-b", "a; DROP KEYSPACE b", &"x".repeat(49)] {
            assert!(check_keyspace_name(name).is_err(), "{name}");
        }
    }
}
