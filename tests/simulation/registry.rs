//! The simulated schema registry: ids that it learns of late or never, outages, and a cache per process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use campaignd::schema::{EVENT_SCHEMA, SchemaError, SchemaSource, WriterSchema};

use crate::faults::Hop;
use crate::instance::{Control, Side, Trip};
use crate::world::{World, lock};

/// The schema that is known from the beginning.
pub const GOOD: u32 = 7;
/// An id that the registry never learns of.
pub const NEVER: u32 = 66;

/// All ids have one schema; it is the id that matters here.
static SCHEMA: LazyLock<Arc<WriterSchema>> =
    LazyLock::new(|| Arc::new(WriterSchema::parse(GOOD, EVENT_SCHEMA).expect("our own schema")));

/// From when on which id is known.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub known_from: BTreeMap<u32, Duration>,
}

/// The registry as one process sees it.
pub struct Client {
    control: Arc<Control>,
    cached: Mutex<BTreeSet<u32>>,
}

impl Client {
    pub fn new(control: &Arc<Control>) -> Client {
        Client { control: Arc::clone(control), cached: Mutex::default() }
    }
}

#[async_trait]
impl SchemaSource for Client {
    async fn schema(&self, id: u32) -> Result<Arc<WriterSchema>, SchemaError> {
        let ask = move |world: &Arc<World>| {
            let at = world.elapsed();
            let is_away = world.plan.registry_outages.iter().any(|window| window.contains(at))
                || world.strikes(world.plan.rates.registry_fails);
            if is_away {
                world.count("registry calls in an outage");
                return Err(SchemaError::Unavailable { reason: "told to".into() });
            }
            if world.registry.known_from.get(&id).is_some_and(|from| *from <= at) {
                return Ok(Arc::clone(&SCHEMA));
            }
            world.count("unknown schemas asked for");
            Err(SchemaError::Unknown { id })
        };
        let trip = Trip::usual(&self.control.world);
        let answer = self.control.call(Side::Processor, Hop::Schema, trip, ask).await;
        let schema = answer.unwrap_or(Err(SchemaError::Unavailable { reason: "no answer".into() }))?;
        lock(&self.cached).insert(id);
        Ok(schema)
    }

    fn cached(&self, id: u32) -> Option<Arc<WriterSchema>> {
        lock(&self.cached).contains(&id).then(|| Arc::clone(&SCHEMA))
    }
}
