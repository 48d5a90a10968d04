//! Schemas held in memory, for tests and simulations.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::{SchemaError, SchemaSource, WriterSchema};

/// A fixed set of schemas by id. Every other id is unknown; it is never unavailable.
#[derive(Clone, Debug, Default)]
pub struct InMemorySchemas {
    schemas: BTreeMap<u32, Arc<WriterSchema>>,
}

impl InMemorySchemas {
    /// No schemas.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one schema more.
    pub fn with(mut self, id: u32, text: &str) -> Result<Self, SchemaError> {
        self.schemas.insert(id, Arc::new(WriterSchema::parse(id, text)?));
        Ok(self)
    }
}

#[async_trait]
impl SchemaSource for InMemorySchemas {
    async fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaError> {
        self.cached(id).ok_or(SchemaError::Unknown { id })
    }

    fn cached(&self, id: u32) -> Option<Arc<WriterSchema>> {
        self.schemas.get(&id).cloned()
    }
}
