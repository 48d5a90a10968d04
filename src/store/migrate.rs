//! Creates the keyspace and its tables, and brings older ones to this version.
//!
//! Versioned and idempotent: each step is recorded in `schema_version` when it is done, and every statement may run
//! again, so a run that stopped half-way is simply repeated. Steps only ever add. The last check of a run is one
//! lightweight transaction, because the fence needs them and not every keyspace allows them.
//!
//! Two runs at the same time are not guarded against each other; run it from one place.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::statement::unprepared::Statement;

use super::StoreError;
use super::scylla::failure::{request_error, unreadable};
use super::scylla::{self as store, Settings};

/// Longest wait for one change of the schema, and for all nodes to know of it.
pub(super) const SCHEMA_TIMEOUT: Duration = Duration::from_secs(60);

/// A step from one version of the tables to the next.
struct Step {
    version: i32,
    what: &'static str,
    /// Statements with `{ks}` for the keyspace; each may run again.
    statements: &'static [&'static str],
}

/// The steps in order. A released step is never changed; a change is a new step.
const STEPS: &[Step] = &[Step {
    version: 1,
    what: "users, partition_fence, decisions, decision_months",
    statements: &[
        // Fenced timestamps and nothing else write here, so no time-window compaction (rule F4).
        "CREATE TABLE IF NOT EXISTS {ks}.users (user_id text PRIMARY KEY, state blob)",
        "CREATE TABLE IF NOT EXISTS {ks}.partition_fence (topic text, partition_id int, fence_us bigint, \
         owner_token uuid, cluster_id text, partition_count int, incarnation bigint, committed_offset bigint, \
         retry_offsets map<int, bigint>, local_datacenter text, \
         PRIMARY KEY ((topic, partition_id)))",
        "CREATE TABLE IF NOT EXISTS {ks}.decisions (user_id text, month int, occurred_at timestamp, decision_id uuid, \
         event_id text, campaign_id text, outcome text, reason text, decision text, \
         PRIMARY KEY ((user_id, month), occurred_at, decision_id)) \
         WITH CLUSTERING ORDER BY (occurred_at DESC, decision_id ASC) \
         AND compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', \
         'compaction_window_size': '14'}",
        "CREATE TABLE IF NOT EXISTS {ks}.decision_months (user_id text, month int, PRIMARY KEY (user_id, month)) \
         WITH CLUSTERING ORDER BY (month DESC)",
    ],
}];

/// The version of the tables that this campaignd works with.
pub fn version() -> i32 {
    STEPS.last().map_or(0, |step| step.version)
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether the keyspace was made by this run.
    pub keyspace_created: bool,
    /// Steps taken by this run: version and what it brought.
    pub steps: Vec<(i32, &'static str)>,
    /// The version the tables have now.
    pub version: i32,
}

/// Creates what is missing.
pub async fn run(settings: &Settings) -> Result<Report, StoreError> {
    let session = store::connect(settings).await?;
    let keyspace = &settings.keyspace;
    let keyspace_created = create_keyspace(&session, settings).await?;
    let table = "CREATE TABLE IF NOT EXISTS {ks}.schema_version (component text, version int, what text, \
                 applied_at timestamp, PRIMARY KEY (component, version)) WITH CLUSTERING ORDER BY (version DESC)";
    change(&session, &table.replace("{ks}", keyspace)).await?;
    try_lightweight_transaction(&session, keyspace).await?;

    let found = current(&session, keyspace).await?;
    let mut steps = Vec::new();
    for step in STEPS.iter().filter(|step| step.version > found) {
        for statement in step.statements {
            change(&session, &statement.replace("{ks}", keyspace)).await?;
        }
        record(&session, keyspace, step).await?;
        steps.push((step.version, step.what));
    }
    Ok(Report { keyspace_created, steps, version: found.max(version()) })
}

/// Refuses a keyspace that this version cannot work with. A newer one is fine: steps only add.
pub(super) async fn check(session: &Session, keyspace: &str) -> Result<(), StoreError> {
    let found = current(session, keyspace).await?;
    if found < version() {
        return Err(StoreError::Refused(format!(
            "the tables of keyspace {keyspace} have version {found}, this campaignd needs {}; run `campaignd store migrate`",
            version()
        )));
    }
    if found > version() {
        tracing::info!(found, known = version(), "the tables were made by a newer campaignd");
    }
    Ok(())
}

/// Creates the keyspace unless it is there; whether it was created. An existing one keeps its replication.
async fn create_keyspace(session: &Session, settings: &Settings) -> Result<bool, StoreError> {
    let Settings { keyspace, local_datacenter, replication_factor, .. } = settings;
    let known = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
    if exists(session, known, (keyspace,)).await? {
        return Ok(false);
    }
    let datacenter = local_datacenter.replace('\'', "''");
    let create = format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', '{datacenter}': '{replication_factor}'}}"
    );
    // A ScyllaDB that knows tablets uses them unless told otherwise, and most of its releases refuse lightweight
    // transactions on them. Where even the option is refused, the trial below says what to do.
    let tablets = "SELECT column_name FROM system_schema.columns WHERE keyspace_name = 'system_schema' \
                   AND table_name = 'scylla_keyspaces' AND column_name = 'initial_tablets'";
    let without_tablets = format!("{create} AND tablets = {{'enabled': false}}");
    if !exists(session, tablets, ()).await? || change(session, &without_tablets).await.is_err() {
        change(session, &create).await?;
    }
    Ok(true)
}

async fn exists(
    session: &Session,
    cql: &str,
    values: impl ::scylla::serialize::row::SerializeRow,
) -> Result<bool, StoreError> {
    let answer = session.query_unpaged(cql, values).await.map_err(|error| request_error(&error))?;
    let rows = answer.into_rows_result().map_err(|error| unreadable(&error))?;
    Ok(rows.rows_num() > 0)
}

/// Runs one change of the schema; the driver then waits until all nodes know of it.
async fn change(session: &Session, cql: &str) -> Result<(), StoreError> {
    let mut statement = Statement::new(cql);
    statement.set_request_timeout(Some(SCHEMA_TIMEOUT));
    session.query_unpaged(statement, ()).await.map(drop).map_err(|error| request_error(&error))
}

/// One lightweight transaction, the same in every run, so that it is applied once and does nothing later.
async fn try_lightweight_transaction(session: &Session, keyspace: &str) -> Result<(), StoreError> {
    let cql = format!(
        "INSERT INTO {keyspace}.schema_version (component, version, what) VALUES ('trial', 0, 'lightweight transactions work') IF NOT EXISTS"
    );
    match session.query_unpaged(cql, ()).await {
        Ok(_) => Ok(()),
        Err(error) if is_refused(&error) => Err(StoreError::Refused(format!(
            "keyspace {keyspace} refuses lightweight transactions, which the fence needs: {error}. On ScyllaDB this is \
             usually a keyspace with tablets: drop it, create it with `AND tablets = {{'enabled': false}}`, and run \
             `campaignd store migrate` again"
        ))),
        Err(error) => Err(request_error(&error)),
    }
}

fn is_refused(error: &ExecutionError) -> bool {
    let ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) = error else {
        return false;
    };
    matches!(error, DbError::Invalid | DbError::ConfigError | DbError::SyntaxError | DbError::ServerError)
}

/// The version the tables have, 0 when there are none.
async fn current(session: &Session, keyspace: &str) -> Result<i32, StoreError> {
    let cql = format!("SELECT version FROM {keyspace}.schema_version WHERE component = ? LIMIT 1");
    let answer = session.query_unpaged(cql, (COMPONENT,)).await.map_err(|error| request_error(&error))?;
    let rows = answer.into_rows_result().map_err(|error| unreadable(&error))?;
    let row = rows.maybe_first_row::<(i32,)>().map_err(|error| unreadable(&error))?;
    Ok(row.map_or(0, |(version,)| version))
}

const COMPONENT: &str = "campaignd";

async fn record(session: &Session, keyspace: &str, step: &Step) -> Result<(), StoreError> {
    let cql = format!(
        "INSERT INTO {keyspace}.schema_version (component, version, what, applied_at) \
         VALUES (?, ?, ?, toTimestamp(now()))"
    );
    let values = (COMPONENT, step.version, step.what);
    session.query_unpaged(cql, values).await.map(drop).map_err(|error| request_error(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_in_order_and_may_run_again() {
        for (place, step) in (1..).zip(STEPS) {
            assert_eq!(step.version, place);
            for statement in step.statements {
                assert!(statement.contains("IF NOT EXISTS") && statement.contains("{ks}."), "{statement}");
            }
        }
    }
}
