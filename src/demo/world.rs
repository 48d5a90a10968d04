//! What the processor needs around it, inside this process: broker, registry, a folder for the store.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use super::samples;
use crate::campaign::folder::Folder;
use crate::config::{Config, StoreKind};
use crate::kafka::broker::EmbeddedBroker;
use crate::kafka::campaigns::{CampaignsTopic, Desired, publish};
use crate::schema::embedded::EmbeddedRegistry;
use crate::schema::registration::{Subjects, register_all};
use crate::schema::registry::RegistryClient;
use crate::topology::{Role, names};

/// Partitions of `events` and of what goes with it.
const PARTITIONS: i32 = 4;
/// Small, so that the generator's oversized poison stays small: the broker keeps about 5 MiB a partition.
const MAX_RECORD_BYTES: usize = 64 * 1024;
/// Short, so that the generator's records of unknown schemas are dead letters while one looks on.
const RETRY_DELAYS_MS: [u64; 2] = [250, 1_000];
/// Longest wait for the broker's answer about offsets.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Records that stand on the topics that the processor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OnTopics {
    /// On `decisions`.
    pub decisions: u64,
    /// On the dead letter topic.
    pub dead_letters: u64,
}

/// The demo's services; they end when this is dropped.
pub(super) struct World {
    config: Config,
    event_schema_id: u32,
    broker: EmbeddedBroker,
    _registry: EmbeddedRegistry,
    _folder: TempDir,
}

impl World {
    /// Starts the services, registers the schemas and publishes the sample campaigns.
    pub async fn start() -> anyhow::Result<World> {
        let mut config = Config::default();
        config.retry.delays_ms = RETRY_DELAYS_MS.to_vec();
        config.retry.max_attempts = RETRY_DELAYS_MS.len() as u64;
        let partitions = |role: &Role| if *role == Role::Campaigns { 1 } else { PARTITIONS };
        let names = names(&config);
        let broker =
            EmbeddedBroker::start(names.iter().map(|(role, name)| (name.as_str(), partitions(role))))?;
        let registry = EmbeddedRegistry::start().await?;
        let folder = TempDir::with_prefix("campaignd-demo-")?;
        config.kafka.brokers = broker.bootstrap_servers();
        config.registry.url = registry.url();
        config.registry.cache_path = folder.path().join("schemas");
        config.store.kind = StoreKind::Embedded;
        config.store.embedded.path = folder.path().join("store");
        // The mock broker lets an empty fetch wait its whole time-out even when a record arrives meanwhile.
        config.kafka.librdkafka.insert("fetch.wait.max.ms".into(), "10".into());
        config.group.instance_id = Some("demo".into());
        config.http.bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        config.pipeline.max_record_bytes = MAX_RECORD_BYTES;

        let client = RegistryClient::new(config.registry_settings())?;
        let topics = &config.topics;
        let subjects = Subjects::of_topics(&topics.events, &topics.decisions, &topics.activity);
        let event_schema_id = register_all(&client, &subjects).await?.ids.event;
        publish_samples(&config).await?;
        Ok(World { config, event_schema_id, broker, _registry: registry, _folder: folder })
    }

    /// The configuration that fits these services.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The id under which the event schema is registered.
    pub fn event_schema_id(&self) -> u32 {
        self.event_schema_id
    }

    /// Where kcat or a producer can join.
    pub fn bootstrap_servers(&self) -> String {
        self.broker.bootstrap_servers()
    }

    /// What stands on the topics now. The mock broker writes no transaction markers, so offsets count records.
    pub async fn published(&self) -> anyhow::Result<OnTopics> {
        let config = self.config.clone();
        let counted = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = config.client_config().set("group.id", "demo-count").create()?;
            let count = |topic: &str| -> anyhow::Result<u64> {
                (0..PARTITIONS).try_fold(0, |sum, partition| {
                    let (_, end) = consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT)?;
                    Ok(sum + u64::try_from(end)?)
                })
            };
            Ok(OnTopics {
                decisions: count(&config.topics.decisions)?,
                dead_letters: count(&config.topics.dlq)?,
            })
        });
        counted.await?
    }
}

async fn publish_samples(config: &Config) -> anyhow::Result<()> {
    let mut folder = Folder::read(samples::FILES);
    folder.check(None);
    if let Some(first) = folder.diagnostics.first() {
        bail!("the sample campaigns are not in order: {first}");
    }
    let desired = Desired {
        catalog: folder.catalog.map(|catalog| catalog.value),
        campaigns: folder.campaigns.into_iter().map(|campaign| campaign.value).collect(),
        ..Desired::default()
    };
    let topic = CampaignsTopic::new(config.client_config(), config.topics.campaigns.clone());
    let id = format!("{}-campaigns", config.group.id);
    let now = jiff::Timestamp::now().to_string();
    tokio::task::spawn_blocking(move || publish(&topic, &id, &desired, "demo", &now))
        .await?
        .context("the sample campaigns are not published")?;
    Ok(())
}
