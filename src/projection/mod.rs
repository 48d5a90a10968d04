//! Folds the published decisions into the audit trail.
//!
//! A second consumer in the same process, in a group of its own, that sees committed records only: the audit table
//! holds exactly what was published. Rows are keyed by decision id and offsets are committed after the rows are
//! stored, so a crash between the two writes the same rows again and nothing else.
//!
//! What always holds: no record is passed over because a store or the registry did not answer; the thread keeps
//! polling meanwhile, so the group keeps its member. A record that cannot be read is counted and passed over, for it
//! is our own topic and nobody could read it later either.
//!
//! It is not on the way of an event: however far it lags, decisions go out.

mod consumer;
mod progress;
mod records;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use progress::Progress;

use crate::config::Config;
use crate::schema::SchemaSource;
use crate::store::{AuditStore, StoreError};
use crate::telemetry::metrics::Metrics;

/// Where the decisions are and how they are taken.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Brokers and security.
    pub client: ClientConfig,
    /// The topic of the decisions.
    pub topic: String,
    /// The projection's own consumer group.
    pub group_id: String,
    /// How long a member may be silent before its partitions go to others.
    pub session_timeout: Duration,
    /// Most records stored and committed at a time.
    pub batch_max_records: usize,
    /// The first wait before a store or a registry that did not answer is asked again; doubled up to a hundredfold.
    pub retry_wait: Duration,
}

impl Settings {
    /// The settings that go with a processor of this configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            client: config.client_config(),
            topic: config.topics.decisions.clone(),
            group_id: format!("{}-audit", config.group.id),
            session_timeout: Duration::from_millis(config.group.session_timeout_ms),
            batch_max_records: 2_000,
            retry_wait: Duration::from_millis(100),
        }
    }
}

/// Why the projection ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The consumer could not be made or has failed for good.
    #[error("the audit projection cannot read {topic}: {cause}")]
    Kafka {
        /// The topic of the decisions.
        topic: String,
        /// librdkafka's error.
        cause: KafkaError,
    },
    /// The store will not take the rows until an operator does something.
    #[error("the audit projection cannot store its rows: {0}")]
    Store(StoreError),
    /// Its thread could not be started, or ended without a word.
    #[error("the thread of the audit projection ended: {0}")]
    Thread(String),
}

/// Reads, stores and commits until `shutdown`; what was read but not stored by then is read again at the next start.
pub async fn run(
    settings: Settings,
    schemas: Arc<dyn SchemaSource>,
    store: Arc<dyn AuditStore>,
    metrics: Metrics,
    progress: Progress,
    shutdown: CancellationToken,
) -> Result<(), ProjectionError> {
    let runtime = Handle::current();
    let (ended, end) = oneshot::channel();
    let work = move || {
        let result = consumer::run(&settings, schemas, store, metrics, progress, &shutdown, &runtime);
        let _ = ended.send(result); // nobody waits when the caller was dropped
    };
    std::thread::Builder::new()
        .name("audit-projection".to_owned())
        .spawn(work)
        .map_err(|error| ProjectionError::Thread(error.to_string()))?;
    end.await.map_err(|_| ProjectionError::Thread("it panicked, see the log".to_owned()))?
}
