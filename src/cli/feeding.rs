//! What the commands that write events have in common: the producer, the schema id, the progress bar, Ctrl-C.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::Config;
use crate::kafka::producer::{Deliveries, EventProducer};
use crate::schema::registration::look_up_event;
use crate::schema::registry::RegistryClient;

/// The id under which `schemas/event.avsc` is registered.
pub(super) async fn event_schema_id(config: &Config) -> anyhow::Result<u32> {
    let client = RegistryClient::new(config.registry_settings())?;
    Ok(look_up_event(&client, &super::schemas::subjects(config)).await?)
}

/// A producer for the events topic. It blocks.
pub(super) fn connect(config: &Config) -> anyhow::Result<EventProducer> {
    let partitioner = config.pipeline.events_partitioner.into();
    Ok(EventProducer::connect(config.client_config(), &config.topics.events, partitioner)?)
}

/// A progress bar on standard error, if that is a terminal.
pub(super) fn progress(length: Option<u64>, unit: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(length, target);
    let form = match (length, unit) {
        (None, _) => "{spinner} {human_pos} {per_sec}".to_owned(),
        (Some(_), "bytes") => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}".to_owned(),
        (Some(_), unit) => format!("{{wide_bar}} {{human_pos}}/{{human_len}} {unit} {{per_sec}} {{eta}}"),
    };
    if let Ok(style) = ProgressStyle::with_template(&form) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Turns true at the first Ctrl-C; the second ends the process at once.
pub(super) fn interrupted() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if seen.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        }
    });
    flag
}

/// Says which records failed and why; true when all were delivered.
pub(super) fn report(deliveries: &Deliveries, name: impl Fn(u64) -> String) -> bool {
    for failure in &deliveries.failures {
        eprintln!("{}: not delivered: {}", name(failure.number), failure.reason);
    }
    let unnamed = deliveries.failed.saturating_sub(deliveries.failures.len() as u64);
    if unnamed > 0 {
        eprintln!("and {unnamed} more not delivered");
    }
    deliveries.failed == 0
}
