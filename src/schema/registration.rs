//! Our three schemas in the registry: putting them there, and finding the ids to write with.

use serde::Serialize;

use super::registry::{Compatibility, RegistryClient, RegistryError};
use super::{ACTIVITY_SCHEMA, DECISION_SCHEMA, EVENT_SCHEMA, OutputCodec};

/// The subjects of our topics' values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subjects {
    /// Of `events`.
    pub events: String,
    /// Of `decisions`.
    pub decisions: String,
    /// Of `activity`.
    pub activity: String,
}

impl Subjects {
    /// The subjects of topics by Confluent's default: the topic's name and `-value`.
    pub fn of_topics(events: &str, decisions: &str, activity: &str) -> Self {
        let subject = |topic: &str| format!("{topic}-value");
        Self { events: subject(events), decisions: subject(decisions), activity: subject(activity) }
    }

    fn with_schemas(&self) -> [(&str, &'static str); 3] {
        [(&self.events, EVENT_SCHEMA), (&self.decisions, DECISION_SCHEMA), (&self.activity, ACTIVITY_SCHEMA)]
    }
}

/// The ids of our schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaIds {
    /// Of `schemas/event.avsc`.
    pub event: u32,
    /// Of `schemas/decision.avsc`.
    pub decision: u32,
    /// Of `schemas/activity.avsc`.
    pub activity: u32,
}

impl SchemaIds {
    /// The codec that writes under these ids.
    pub fn output_codec(&self) -> OutputCodec {
        OutputCodec { decision_schema_id: self.decision, activity_schema_id: self.activity }
    }
}

/// What registering did to one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Registration {
    /// The subject.
    pub subject: String,
    /// Id of the schema.
    pub id: u32,
    /// Whether the schema was new to the subject.
    pub created: bool,
    /// Compatibility level of the subject.
    pub compatibility: Compatibility,
}

/// What registering did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The ids to write with.
    pub ids: SchemaIds,
    /// One entry per subject: events, decisions, activity.
    pub subjects: [Registration; 3],
}

/// Registers the three schemas. A subject that has no compatibility level of its own gets BACKWARD first, so that the
/// registry refuses what would break readers; a level that was set stays. Doing it again changes nothing.
pub async fn register_all(client: &RegistryClient, subjects: &Subjects) -> Result<Registered, RegistryError> {
    let [events, decisions, activity] = subjects.with_schemas();
    let events = register(client, events).await?;
    let decisions = register(client, decisions).await?;
    let activity = register(client, activity).await?;
    let ids = SchemaIds { event: events.id, decision: decisions.id, activity: activity.id };
    Ok(Registered { ids, subjects: [events, decisions, activity] })
}

async fn register(
    client: &RegistryClient,
    (subject, schema): (&str, &str),
) -> Result<Registration, RegistryError> {
    let level = client.compatibility(subject).await?;
    let mut set = level.is_some();
    if !set {
        set = match client.set_compatibility(subject, Compatibility::Backward).await {
            Ok(()) => true,
            Err(RegistryError::NotFound { .. }) => false,
            Err(error) => return Err(error),
        };
    }
    let created = client.look_up(subject, schema).await?.is_none();
    let id = client.register(subject, schema).await?;
    if !set {
        client.set_compatibility(subject, Compatibility::Backward).await?;
    }
    let compatibility = level.unwrap_or(Compatibility::Backward);
    Ok(Registration { subject: subject.to_owned(), id, created, compatibility })
}

/// The id under which exactly our event schema is registered, for those who write events only. Fails as [`look_up_all`].
pub async fn look_up_event(client: &RegistryClient, subjects: &Subjects) -> Result<u32, RegistryError> {
    look_up(client, &subjects.events, EVENT_SCHEMA).await
}

/// The ids under which exactly our schemas are registered. [`RegistryError::NotFound`] when one is not: this process
/// must not write under an id that means another schema. While the registry does not answer, the ids of an earlier start
/// serve, if the client keeps them.
pub async fn look_up_all(client: &RegistryClient, subjects: &Subjects) -> Result<SchemaIds, RegistryError> {
    let [events, decisions, activity] = subjects.with_schemas();
    // At once: each may have to wait for its whole time-out before the disk is asked.
    let (event, decision, activity) = futures::try_join!(
        look_up(client, events.0, events.1),
        look_up(client, decisions.0, decisions.1),
        look_up(client, activity.0, activity.1),
    )?;
    Ok(SchemaIds { event, decision, activity })
}

async fn look_up(client: &RegistryClient, subject: &str, schema: &str) -> Result<u32, RegistryError> {
    let registered = client.look_up_kept(subject, schema).await?;
    registered.ok_or_else(|| RegistryError::NotFound {
        what: format!("schema of this version under {subject}; run `campaignd schemas register`"),
    })
}
