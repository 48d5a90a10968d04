//! The registry behind its breaker.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::circuit::{ANSWERED, Limits};
use super::handle::{Breaker, Patience, unless_ended};
use crate::pipeline::decoded::Abandoned;
use crate::pipeline::failure::{Failure, Infrastructure, Reaction, policy};
use crate::schema::{SchemaError, SchemaSource, WriterSchema};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::{Dependency, Metrics};

/// What the registry says of an id that there is no schema to read with. That it did not answer is none of these, so that
/// nobody can take an outage for a bad record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoSchema {
    /// It knows no such id.
    Unknown,
    /// What it has is not usable, and why.
    Unusable(String),
}

/// A source of schemas that is waited for.
#[derive(Clone)]
pub struct GuardedSchemas {
    schemas: Arc<dyn SchemaSource>,
    breaker: Breaker,
    metrics: Metrics,
}

impl GuardedSchemas {
    /// Puts a source behind a breaker of its own.
    pub fn new(
        schemas: Arc<dyn SchemaSource>,
        limits: Limits,
        metrics: &Metrics,
        health: &Health,
    ) -> GuardedSchemas {
        let breaker = Breaker::new(Dependency::Registry, limits, metrics, health);
        GuardedSchemas { schemas, breaker, metrics: metrics.clone() }
    }

    /// The schema of an id if it is at hand, without waiting.
    pub fn cached(&self, id: u32) -> Option<Arc<WriterSchema>> {
        self.schemas.cached(id)
    }

    /// The schema of an id, however long the registry takes to answer.
    ///
    /// # Errors
    ///
    /// [`Abandoned`] when the epoch ends first.
    pub async fn schema(
        &self,
        id: u32,
        epoch: &CancellationToken,
    ) -> Result<Result<Arc<WriterSchema>, NoSchema>, Abandoned> {
        let mut patience = Patience::default();
        loop {
            let permit = self.breaker.admit(epoch, &mut patience).await?;
            let answer = match unless_ended(epoch, self.schemas.schema(id)).await? {
                Ok(schema) => Ok(schema),
                Err(SchemaError::Unknown { .. }) => Err(NoSchema::Unknown),
                Err(error @ SchemaError::Invalid { .. }) => Err(NoSchema::Unusable(error.to_string())),
                Err(error @ SchemaError::Unavailable { .. }) => {
                    debug_assert_eq!(
                        policy(&Failure::Infrastructure(Infrastructure::RegistryUnavailable)),
                        Reaction::Wait
                    );
                    self.metrics.registry_retry();
                    permit.failed(&error, &mut patience, epoch).await?;
                    continue;
                }
            };
            permit.ended(ANSWERED, &"");
            return Ok(answer);
        }
    }
}
