//! The configuration as each part wants it.

use std::time::Duration;

use crate::config::{Breaker, Config, EventsPartitioner, Registry, StoreKind};
use crate::kafka::log::{BatchLimits, LogSettings};
use crate::partitioner::Partitioner;
use crate::pipeline::Settings;
use crate::pipeline::breaker::Limits;
use crate::pipeline::parking::Tiers;
use crate::pipeline::parking::tiers::MAX_TIERS;
use crate::pipeline::settings::RetrySettings;
use crate::schema::registry::RegistrySettings;
use crate::telemetry::health::Health;

/// Largest encoded decision: Kafka's default record limit, less room for key and headers (rule S9).
const MAX_DECISION_BYTES: usize = 1024 * 1024 - 64 * 1024;
/// Most decisions of one event (rule S9).
const MAX_DECISIONS_PER_EVENT: usize = 1_000;
/// Bytes of one user's outbox at which a batch is read again in smaller pieces (rule S9). Two batches may be in flight,
/// and the cell must stay far below the 16 MiB that Cassandra takes in one write.
const MAX_OUTBOX_BYTES: usize = 1024 * 1024;

impl Config {
    /// What the pipeline is told.
    pub fn pipeline_settings(&self) -> Settings {
        Settings {
            events_topic: self.topics.events.clone(),
            lanes: self.lanes(),
            cache_max_bytes: self.pipeline.cache_max_bytes,
            max_future_skew: Duration::from_millis(self.pipeline.max_future_skew_ms),
            max_record_bytes: self.pipeline.max_record_bytes,
            max_decision_bytes: MAX_DECISION_BYTES,
            max_decisions_per_event: MAX_DECISIONS_PER_EVENT,
            max_outbox_bytes: MAX_OUTBOX_BYTES,
            events_partitioner: self.pipeline.events_partitioner.into(),
            drain_timeout: Duration::from_millis(self.group.drain_timeout_ms),
            session_timeout: Duration::from_millis(self.group.session_timeout_ms),
            store_write_timeout: self.store_write_timeout(),
            breaker: self.breaker_limits(),
            retry: RetrySettings {
                topic: self.topics.retry.clone(),
                tiers: self.tiers(),
                max_attempts: u32::try_from(self.retry.max_attempts).unwrap_or(u32::MAX),
                max_pending: self.retry.max_pending,
                max_pending_per_user: self.retry.max_pending_per_user,
            },
        }
    }

    /// The delays of the retry topics.
    fn tiers(&self) -> Tiers {
        let delays: Vec<Duration> = self.retry.delays_ms.iter().copied().map(Duration::from_millis).collect();
        Tiers::new(&delays)
    }

    /// How long a write may be under way whose sender is gone. That of a process that is gone cannot be, in a folder.
    fn store_write_timeout(&self) -> Duration {
        match self.store.kind {
            StoreKind::Scylla => Duration::from_millis(self.store.scylla.request_timeout_ms),
            StoreKind::Embedded => Duration::ZERO,
        }
    }

    /// When the breakers open and how they try to close.
    pub fn breaker_limits(&self) -> Limits {
        let Breaker { window_ms, failure_share_percent, run_length, probe_min_ms, probe_max_ms } =
            self.breaker.clone();
        Limits {
            window: Duration::from_millis(window_ms),
            failure_share_percent,
            run_length,
            probe_min: Duration::from_millis(probe_min_ms),
            probe_max: Duration::from_millis(probe_max_ms),
        }
    }

    /// How the registry is reached by a command that ends soon: it keeps no schemas on disk.
    pub fn registry_settings(&self) -> RegistrySettings {
        let Registry { url, user, password, timeout_ms, cache_path: _ } = self.registry.clone();
        let timeout = Duration::from_millis(timeout_ms);
        RegistrySettings { url, user, password, timeout, cache_path: None }
    }

    /// How the registry is reached by the processor, which must start without it.
    pub fn kept_registry_settings(&self) -> RegistrySettings {
        RegistrySettings { cache_path: Some(self.registry.cache_path.clone()), ..self.registry_settings() }
    }

    /// What the two sides of the event log are told.
    pub fn log_settings(&self, health: &Health) -> LogSettings {
        LogSettings {
            client: self.client_config(),
            events: self.topics.events.clone(),
            longest_delay: Duration::from_millis(self.retry.delays_ms.last().copied().unwrap_or(0)),
            retry: (1..=u8::MAX).take(MAX_TIERS).map(|tier| self.topics.retry_topic(tier)).collect(),
            decisions: self.topics.decisions.clone(),
            activity: self.topics.activity.clone(),
            dead_letters: self.topics.dlq.clone(),
            group_id: self.group.id.clone(),
            instance_id: self.instance_id(),
            static_membership: self.group.static_membership,
            is_sole_member: self.store.kind == StoreKind::Embedded,
            session_timeout: Duration::from_millis(self.group.session_timeout_ms),
            transaction_timeout: Duration::from_millis(self.group.transaction_timeout_ms),
            drain_timeout: Duration::from_millis(self.group.drain_timeout_ms),
            batch: BatchLimits {
                max_wait: Duration::from_millis(self.pipeline.batch_max_wait_ms),
                max_records: self.pipeline.batch_max_records,
                max_bytes: self.pipeline.batch_max_bytes,
                max_records_per_user: self.pipeline.batch_max_records_per_user,
            },
            health: health.clone(),
        }
    }
}

impl From<EventsPartitioner> for Partitioner {
    fn from(partitioner: EventsPartitioner) -> Self {
        match partitioner {
            EventsPartitioner::Murmur2 => Self::Murmur2,
            EventsPartitioner::Crc32 => Self::Crc32,
        }
    }
}
