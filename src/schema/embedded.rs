//! A schema registry inside this process, for the demo and for tests.
//!
//! It speaks the part of Confluent's API that our client and the usual Avro serialisers need, on a free port of the
//! loopback address: register, look up, schema by id, subjects and versions, compatibility NONE and BACKWARD (checked by
//! `apache-avro`). It keeps everything in memory, a bounded number of schemas, and knows no references, no deletion and
//! no authentication: it is not a registry for production.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::registry::Compatibility;
use super::writer::MAX_SCHEMA_BYTES;

/// Most schemas held.
const MAX_SCHEMAS: usize = 1000;

/// A running registry; it ends when this is dropped.
#[derive(Debug)]
pub struct EmbeddedRegistry {
    address: SocketAddr,
    server: AbortHandle,
}

impl EmbeddedRegistry {
    /// Starts a registry on a free port of the loopback address.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router()).await {
                tracing::error!(%error, "the embedded schema registry has ended");
            }
        });
        Ok(Self { address, server: server.abort_handle() })
    }

    /// Its base address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for EmbeddedRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn router() -> Router {
    let shared: Shared = Arc::default();
    Router::new()
        .route("/", get(|| async { Json(json!({})) }))
        .route("/schemas/ids/{id}", get(schema_by_id))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(check))
        .route("/config", get(global_level).put(set_global_level))
        .route("/config/{subject}", get(level).put(set_level))
        .layer(DefaultBodyLimit::max(2 * MAX_SCHEMA_BYTES))
        .with_state(shared)
}

#[derive(Debug, Default)]
struct Registry {
    /// Schema of id n at place n - 1.
    schemas: Vec<Entry>,
    /// Ids by subject; version n at place n - 1.
    subjects: BTreeMap<String, Vec<u32>>,
    levels: BTreeMap<String, Compatibility>,
    global_level: Option<Compatibility>,
}

#[derive(Debug)]
struct Entry {
    text: String,
    /// The same as a JSON value: two texts that differ in white space only are one schema.
    json: Value,
    parsed: Schema,
}

type Shared = Arc<Mutex<Registry>>;
type Answer = Result<Json<Value>, Refusal>;

struct Refusal(StatusCode, i64, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal(status, code, message) = self;
        (status, Json(json!({ "error_code": code, "message": message }))).into_response()
    }
}

fn not_found(code: i64, message: String) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, code, message)
}

fn unprocessable(code: i64, message: String) -> Refusal {
    Refusal(StatusCode::UNPROCESSABLE_ENTITY, code, message)
}

#[derive(Deserialize)]
struct SchemaRequest {
    schema: String,
    #[serde(default, rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Value>,
}

impl SchemaRequest {
    fn parse(request: Result<Json<SchemaRequest>, JsonRejection>) -> Result<Entry, Refusal> {
        let Json(request) = request.map_err(|error| unprocessable(42201, error.body_text()))?;
        if request.schema_type.is_some_and(|kind| kind != "AVRO") || !request.references.is_empty() {
            return Err(unprocessable(42201, "only Avro without references is supported here".into()));
        }
        let invalid = |reason: String| unprocessable(42201, format!("Invalid schema: {reason}"));
        let parsed = Schema::parse_str(&request.schema).map_err(|error| invalid(error.to_string()))?;
        let json = serde_json::from_str(&request.schema).map_err(|error| invalid(error.to_string()))?;
        Ok(Entry { text: request.schema, json, parsed })
    }
}

#[derive(Deserialize)]
struct LevelRequest {
    compatibility: String,
}

impl LevelRequest {
    fn parse(request: Result<Json<LevelRequest>, JsonRejection>) -> Result<Compatibility, Refusal> {
        let Json(request) = request.map_err(|error| unprocessable(42203, error.body_text()))?;
        match request.compatibility.as_str() {
            "NONE" => Ok(Compatibility::None),
            "BACKWARD" => Ok(Compatibility::Backward),
            other => {
                Err(unprocessable(42203, format!("{other} is not supported here; use NONE or BACKWARD")))
            }
        }
    }
}

impl Registry {
    fn entry(&self, id: u32) -> Option<&Entry> {
        self.schemas.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    fn id_of(&self, entry: &Entry) -> Option<u32> {
        let place = self.schemas.iter().position(|known| known.json == entry.json)?;
        u32::try_from(place + 1).ok()
    }

    fn ids(&self, subject: &str) -> Result<&[u32], Refusal> {
        let ids = self.subjects.get(subject).map(Vec::as_slice);
        ids.ok_or_else(|| not_found(40401, format!("Subject '{subject}' not found.")))
    }

    fn answer(&self, subject: &str, version: usize) -> Answer {
        let id = version.checked_sub(1).and_then(|place| self.ids(subject).ok()?.get(place).copied());
        let entry = id.and_then(|id| self.entry(id));
        let entry = entry.ok_or_else(|| not_found(40402, format!("Version {version} not found.")))?;
        Ok(Json(json!({ "subject": subject, "version": version, "id": id, "schema": entry.text })))
    }

    /// Why the subject's level does not accept the schema.
    fn objection(&self, subject: &str, entry: &Entry) -> Option<String> {
        let level = self.levels.get(subject).copied().or(self.global_level);
        if level == Some(Compatibility::None) {
            return None;
        }
        let latest = self.entry(*self.subjects.get(subject)?.last()?)?;
        let error = SchemaCompatibility::can_read(&latest.parsed, &entry.parsed).err()?;
        Some(format!("the new schema cannot read what the latest one wrote: {error}"))
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Registry> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn schema_by_id(State(shared): State<Shared>, Path(id): Path<u32>) -> Answer {
    let registry = lock(&shared);
    let entry = registry.entry(id).ok_or_else(|| not_found(40403, format!("Schema {id} not found.")))?;
    Ok(Json(json!({ "schema": entry.text })))
}

async fn subjects(State(shared): State<Shared>) -> Json<Value> {
    Json(json!(lock(&shared).subjects.keys().collect::<Vec<_>>()))
}

async fn versions(State(shared): State<Shared>, Path(subject): Path<String>) -> Answer {
    let count = lock(&shared).ids(&subject)?.len();
    Ok(Json(json!((1..=count).collect::<Vec<_>>())))
}

async fn version(State(shared): State<Shared>, Path((subject, version)): Path<(String, String)>) -> Answer {
    let registry = lock(&shared);
    let latest = registry.ids(&subject)?.len();
    let version = match version.as_str() {
        "latest" | "-1" => latest,
        number => number.parse().map_err(|_| unprocessable(42202, "The version is not a number.".into()))?,
    };
    registry.answer(&subject, version)
}

async fn register(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    request: Result<Json<SchemaRequest>, JsonRejection>,
) -> Answer {
    let entry = SchemaRequest::parse(request)?;
    let mut registry = lock(&shared);
    let known = registry.id_of(&entry);
    let held = registry.subjects.get(&subject).is_some_and(|ids| ids.iter().any(|id| Some(*id) == known));
    if let Some(id) = known
        && held
    {
        return Ok(Json(json!({ "id": id })));
    }
    if let Some(message) = registry.objection(&subject, &entry) {
        return Err(Refusal(StatusCode::CONFLICT, 409, message));
    }
    let id = match known {
        Some(id) => id,
        None if registry.schemas.len() >= MAX_SCHEMAS => {
            return Err(unprocessable(42201, format!("this registry holds {MAX_SCHEMAS} schemas at most")));
        }
        None => {
            registry.schemas.push(entry);
            u32::try_from(registry.schemas.len()).unwrap_or(u32::MAX)
        }
    };
    registry.subjects.entry(subject).or_default().push(id);
    Ok(Json(json!({ "id": id })))
}

async fn look_up(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    request: Result<Json<SchemaRequest>, JsonRejection>,
) -> Answer {
    let entry = SchemaRequest::parse(request)?;
    let registry = lock(&shared);
    let ids = registry.ids(&subject)?;
    let place = registry.id_of(&entry).and_then(|id| ids.iter().position(|known| *known == id));
    let place = place.ok_or_else(|| not_found(40403, "Schema not found".into()))?;
    registry.answer(&subject, place + 1)
}

async fn check(
    State(shared): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    request: Result<Json<SchemaRequest>, JsonRejection>,
) -> Answer {
    let entry = SchemaRequest::parse(request)?;
    if version != "latest" {
        return Err(unprocessable(42202, "only the latest version is compared here".into()));
    }
    let registry = lock(&shared);
    registry.ids(&subject)?;
    let objection = registry.objection(&subject, &entry);
    Ok(Json(json!({ "is_compatible": objection.is_none(), "messages": Vec::from_iter(objection) })))
}

async fn global_level(State(shared): State<Shared>) -> Json<Value> {
    let level = lock(&shared).global_level.unwrap_or(Compatibility::Backward);
    Json(json!({ "compatibilityLevel": level }))
}

async fn set_global_level(
    State(shared): State<Shared>,
    request: Result<Json<LevelRequest>, JsonRejection>,
) -> Answer {
    let level = LevelRequest::parse(request)?;
    lock(&shared).global_level = Some(level);
    Ok(Json(json!({ "compatibility": level })))
}

async fn level(State(shared): State<Shared>, Path(subject): Path<String>) -> Answer {
    let registry = lock(&shared);
    let level = registry.levels.get(&subject).ok_or_else(|| {
        not_found(40408, format!("Subject '{subject}' does not have subject-level compatibility configured"))
    })?;
    Ok(Json(json!({ "compatibilityLevel": level })))
}

async fn set_level(
    State(shared): State<Shared>,
    Path(subject): Path<String>,
    request: Result<Json<LevelRequest>, JsonRejection>,
) -> Answer {
    let level = LevelRequest::parse(request)?;
    let mut registry = lock(&shared);
    if registry.levels.len() >= MAX_SCHEMAS && !registry.levels.contains_key(&subject) {
        return Err(unprocessable(42203, format!("this registry holds {MAX_SCHEMAS} levels at most")));
    }
    registry.levels.insert(subject, level);
    Ok(Json(json!({ "compatibility": level })))
}
