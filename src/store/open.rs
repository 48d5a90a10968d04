//! The store that the configuration names.

use std::sync::Arc;
use std::time::Duration;

use super::embedded::EmbeddedStore;
use super::scylla::{ScyllaStore, Settings};
use super::{AuditStore, StateStore, StoreError};
use crate::config::{Config, Scylla, StoreKind};

/// Opens the store of the configuration, once for both traits: the embedded folder has one owner.
pub async fn open(config: &Config) -> Result<(Arc<dyn StateStore>, Arc<dyn AuditStore>), StoreError> {
    match config.store.kind {
        StoreKind::Scylla => {
            let store = Arc::new(ScyllaStore::connect(&Settings::from(&config.store.scylla)).await?);
            Ok((Arc::clone(&store) as Arc<dyn StateStore>, store))
        }
        StoreKind::Embedded => {
            let folder = config.store.embedded.path.clone();
            let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&folder)).await;
            let store = Arc::new(opened.map_err(|error| {
                StoreError::Unavailable(format!("opening the embedded store ended early: {error}"))
            })??);
            Ok((Arc::clone(&store) as Arc<dyn StateStore>, store))
        }
    }
}

impl From<&Scylla> for Settings {
    fn from(config: &Scylla) -> Self {
        let credentials = match (&config.user, &config.password) {
            (Some(user), Some(password)) => Some((user.clone(), password.clone())),
            _ => None, // the configuration is checked: both or neither
        };
        Self {
            nodes: config.nodes.clone(),
            keyspace: config.keyspace.clone(),
            local_datacenter: config.local_datacenter.clone(),
            replication_factor: config.replication_factor,
            credentials,
            requests_in_flight: config.requests_in_flight,
            request_timeout: Duration::from_millis(config.request_timeout_ms),
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            audit_ttl: Duration::from_secs(config.audit_ttl_days.saturating_mul(86_400)),
        }
    }
}
