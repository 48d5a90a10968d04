//! One instance of the processor, put together; `run` and `demo` start the very same.
//!
//! What always holds: nothing joins the group before the store, the topics, the schemas and the campaigns are there,
//! so an instance that cannot work takes no partition from one that can. At the end intake stops first and the port
//! of `/metrics` last.

mod campaigns;
mod settings;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::campaign::set::CampaignSet;
use crate::config::Config;
use crate::kafka::campaigns::{CampaignsError, CampaignsReader, CampaignsTopic};
use crate::kafka::log::{KafkaLog, KafkaOutput, LogSettings, wait_until_alone};
use crate::pipeline::clock::SystemClock;
use crate::pipeline::lane::LaneParts;
use crate::pipeline::log::LogError;
use crate::pipeline::{self, Parts, PipelineError};
use crate::projection::{self, Progress, ProjectionError};
use crate::schema::SchemaSource;
use crate::schema::registration::{Subjects, look_up_all};
use crate::schema::registry::{RegistryClient, RegistryError};
use crate::store::{self, AuditStore, StateStore, StoreError};
use crate::telemetry::health::{Condition, Health};
use crate::telemetry::metrics::{Metrics, MetricsError};
use crate::topology::{Cluster, TopologyError};

/// Why an instance did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port of `/metrics` cannot be had.
    #[error("http.bind: cannot listen on {address}: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// The metrics are declared wrongly.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The topics.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The campaigns topic.
    #[error(transparent)]
    Campaigns(#[from] CampaignsError),
    /// The consumer or the producer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A blocking step was cut off.
    #[error("a step of the start was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

impl StartError {
    /// Whether trying again is pointless until somebody changes something.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Bind { .. }
            | Self::Topology(TopologyError::Unfit(_))
            | Self::Store(StoreError::Refused(_))
            | Self::Registry(RegistryError::NotFound { .. })
            | Self::Campaigns(CampaignsError::MissingTopic(_) | CampaignsError::PartitionCount { .. })
            | Self::Log(LogError::Refused(_)) => true,
            Self::Metrics(_)
            | Self::Store(_)
            | Self::Topology(_)
            | Self::Registry(_)
            | Self::Campaigns(_)
            | Self::Log(_)
            | Self::Cut(_) => false,
        }
    }
}

/// Why an instance ended by itself, or not as it should.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// The pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The projection.
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    /// The HTTP port.
    #[error("the HTTP port failed: {0}")]
    Http(#[from] io::Error),
    /// A part panicked or stopped without a reason.
    #[error("{0} ended unexpectedly; see the log")]
    Part(&'static str),
}

/// A running instance. Dropping it aborts it, as a crash would.
pub struct Processor {
    http_address: SocketAddr,
    metrics: Metrics,
    health: Health,
    audit: Arc<dyn AuditStore>,
    projected: Progress,
    campaigns: Arc<CampaignsReader>,
    pipeline: Part<PipelineError>,
    projection: Part<ProjectionError>,
    http: Part<io::Error>,
}

/// Starts an instance: port, store, topics, schemas, campaigns, projection, pipeline, in this order.
pub async fn start(config: &Config) -> Result<Processor, StartError> {
    let (metrics, health) = (Metrics::new()?, Health::new());
    let (http_address, http) = start_http(config, &metrics, &health).await?;

    let (state, audit) = store::open(config).await?;
    health.ready(Condition::Store, config.store.kind.as_str());
    tracing::info!(store = %config.store.kind, "the store is open");

    let partitions = Cluster::new(config)?.check(config).await?;
    tracing::info!(brokers = config.kafka.brokers, ?partitions, "the topics are as they must be");

    let registry = RegistryClient::new(config.kept_registry_settings())?;
    let topics = &config.topics;
    let subjects = Subjects::of_topics(&topics.events, &topics.decisions, &topics.activity);
    let codec = look_up_all(&registry, &subjects).await?.output_codec();
    let schemas: Arc<dyn SchemaSource> = Arc::new(registry);
    tracing::info!(registry = config.registry.url, "the ids of our schemas are known");

    let campaigns = start_campaigns(config, &metrics, &health).await?;

    let projected = Progress::new();
    let projection = Part::start("the projection", |end| {
        projection::run(
            projection::Settings::new(config),
            Arc::clone(&schemas),
            Arc::clone(&audit),
            metrics.clone(),
            projected.clone(),
            end,
        )
    });
    let lanes = LaneParts {
        store: Arc::clone(&state) as Arc<dyn StateStore>,
        schemas,
        codec,
        settings: Arc::new(config.pipeline_settings()),
        metrics: metrics.clone(),
    };
    let pipeline = start_pipeline(config, lanes, &campaigns, &health).await?;
    tracing::info!(group = config.group.id, instance = config.instance_id(), "joining the group");
    Ok(Processor { http_address, metrics, health, audit, projected, campaigns, pipeline, projection, http })
}

async fn start_http(
    config: &Config,
    metrics: &Metrics,
    health: &Health,
) -> Result<(SocketAddr, Part<io::Error>), StartError> {
    let address = config.http.bind;
    let bind = |cause| StartError::Bind { address, cause };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let http = Part::start("the HTTP port", |end| api::serve(listener, metrics.clone(), health.clone(), end));
    tracing::info!("/metrics, /livez and /readyz on http://{bound}");
    Ok((bound, http))
}

async fn start_campaigns(
    config: &Config,
    metrics: &Metrics,
    health: &Health,
) -> Result<Arc<CampaignsReader>, StartError> {
    let topic = CampaignsTopic::new(config.client_config(), config.topics.campaigns.clone());
    let reader = CampaignsReader::start(topic, metrics.clone()).await?;
    reader.caught_up().await?;
    let set = reader.current();
    health.ready(Condition::Campaigns, describe(&set));
    tracing::info!(topic = config.topics.campaigns, "the campaigns are read: {}", describe(&set));
    Ok(Arc::new(reader))
}

fn describe(set: &CampaignSet) -> String {
    let (all, position) = (set.campaigns().count(), set.position());
    if position < 0 { "none published yet".into() } else { format!("{all} up to offset {position}") }
}

async fn start_pipeline(
    config: &Config,
    lanes: LaneParts,
    campaigns: &Arc<CampaignsReader>,
    health: &Health,
) -> Result<Part<PipelineError>, StartError> {
    let settings = config.log_settings(health);
    if settings.is_sole_member {
        wait_until_alone(&settings).await?;
    }
    let (log, output) = open_log(settings).await?;
    let parts = Parts {
        log,
        output: Arc::new(output),
        campaigns: Arc::new(campaigns::Source(Arc::clone(campaigns))),
        lanes,
        clock: Arc::new(SystemClock),
        health: health.clone(),
    };
    Ok(Part::start("the pipeline", |end| pipeline::run(parts, end)))
}

/// The producer first: its start waits for open transactions of a predecessor, and the consumer joins the group.
async fn open_log(settings: LogSettings) -> Result<(KafkaLog, KafkaOutput), StartError> {
    let opened = tokio::task::spawn_blocking(move || {
        let output = KafkaOutput::open(&settings)?;
        Ok::<_, LogError>((KafkaLog::open(&settings)?, output))
    });
    Ok(opened.await??)
}

impl Processor {
    /// Where `/metrics`, `/livez` and `/readyz` are.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Its health.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The audit trail.
    pub fn audit(&self) -> &Arc<dyn AuditStore> {
        &self.audit
    }

    /// How far the audit trail goes.
    pub fn projected(&self) -> &Progress {
        &self.projected
    }

    /// The campaigns that are live now.
    pub fn campaigns(&self) -> Arc<CampaignSet> {
        self.campaigns.current()
    }

    /// Waits until a part ends by itself; the error says which and why.
    pub async fn ended(&mut self) -> EndError {
        let error = tokio::select! {
            error = self.pipeline.ended() => error,
            error = self.projection.ended() => error,
            error = self.http.ended() => error,
        };
        self.health.fail(error.to_string());
        error
    }

    /// Stops intake, commits what is in flight, leaves the group, then ends the rest. The first error is returned, but
    /// every part is ended.
    pub async fn stop(self) -> Result<(), EndError> {
        self.health.not_ready(Condition::Assignment, "shutting down");
        let pipeline = self.pipeline.stop().await;
        let projection = self.projection.stop().await;
        if let Ok(campaigns) = Arc::try_unwrap(self.campaigns) {
            campaigns.stop().await;
        }
        let http = self.http.stop().await;
        pipeline.and(projection).and(http)
    }
}

/// A task of the instance, with its own end.
struct Part<E> {
    name: &'static str,
    /// Absent once its result was taken.
    task: Option<JoinHandle<Result<(), E>>>,
    end: CancellationToken,
}

impl<E: Send + 'static> Part<E>
where
    EndError: From<E>,
{
    fn start<F>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let end = CancellationToken::new();
        Self { name, task: Some(tokio::spawn(run(end.clone()))), end }
    }

    /// Waits until it ends, which it should not. Cancel safe.
    async fn ended(&mut self) -> EndError {
        let Some(task) = &mut self.task else { return EndError::Part(self.name) };
        let result = task.await;
        self.task = None;
        match result {
            Ok(Err(error)) => error.into(),
            Ok(Ok(())) | Err(_) => EndError::Part(self.name),
        }
    }

    /// Tells it to end and waits; well if it has ended before.
    async fn stop(mut self) -> Result<(), EndError> {
        self.end.cancel();
        let Some(task) = self.task.take() else { return Ok(()) };
        match task.await {
            Ok(result) => Ok(result?),
            Err(_) => Err(EndError::Part(self.name)),
        }
    }
}

impl<E> Drop for Part<E> {
    /// Without [`Part::stop`] it ends where it stands.
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
