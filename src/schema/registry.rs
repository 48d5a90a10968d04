//! The client of a schema registry that speaks Confluent's API.
//!
//! What always holds: every call has a time-out and reads a bounded answer; a schema that was found is kept (a bounded
//! number), in memory and, if there is a folder for it, on disk; calls for one id that come while one is under way share
//! its answer. Only the registry's own word that an id does not exist (404 with error code 40403) counts as unknown;
//! refusals, overload and time-outs say nothing about a schema and are [`SchemaError::Unavailable`], whatever their
//! status. Neither is ever kept; a schema that cannot be used is remembered for a minute. What is on disk is used only
//! when the registry does not answer.
//!
//! It is not a retry loop: whoever calls knows how long to wait.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use reqwest::{Client, Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::folder::SchemaFolder;
use super::writer::{MAX_SCHEMA_BYTES, WriterSchema};
use super::{SchemaError, SchemaSource};

/// Schemas kept. A topic rarely sees more than a few dozen.
const MAX_CACHED: usize = 1024;
/// Longest answer read: the longest schema, escaped.
const MAX_ANSWER_BYTES: usize = 2 * MAX_SCHEMA_BYTES;
/// How long a schema that cannot be used is not asked for again. The schema of an id never changes, but a release of ours
/// or a mended registry may take it.
const UNUSABLE_FOR: Duration = Duration::from_secs(60);
/// Most schemas that one schema may refer to, directly or not.
const MAX_REFERENCES: usize = 64;

/// How to reach a registry.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Base address, such as `http://127.0.0.1:8081` or `http://127.0.0.1:8081/apis/ccompat/v7`.
    pub url: String,
    /// User for basic authentication.
    pub user: Option<String>,
    /// Password for basic authentication.
    pub password: Option<SecretString>,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Folder in which schemas are kept over restarts, if they are to be.
    pub cache_path: Option<PathBuf>,
}

impl RegistrySettings {
    /// A registry without authentication; nothing is kept on disk.
    pub fn at(url: &str) -> Self {
        let timeout = Duration::from_secs(5);
        Self { url: url.to_owned(), user: None, password: None, timeout, cache_path: None }
    }
}

/// Which changes of a subject's schema a registry accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Compatibility {
    /// All.
    None,
    /// Those by which the new schema reads what the latest one wrote.
    Backward,
    /// The same for all earlier ones.
    BackwardTransitive,
    /// Those by which the latest schema reads what the new one writes.
    Forward,
    /// The same for all earlier ones.
    ForwardTransitive,
    /// Both ways.
    Full,
    /// Both ways, for all earlier ones.
    FullTransitive,
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compatibility::None => "NONE",
            Compatibility::Backward => "BACKWARD",
            Compatibility::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Compatibility::Forward => "FORWARD",
            Compatibility::ForwardTransitive => "FORWARD_TRANSITIVE",
            Compatibility::Full => "FULL",
            Compatibility::FullTransitive => "FULL_TRANSITIVE",
        })
    }
}

/// Why a call about subjects failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// `registry.url` is not an address.
    #[error("registry.url {url:?} is not an http or https address: {reason}")]
    Url {
        /// The address given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No answer, or an answer that says nothing about the question.
    #[error("the schema registry is unavailable: {reason}")]
    Unavailable {
        /// What was seen.
        reason: String,
    },
    /// The subject, version or schema does not exist.
    #[error("the registry has no {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The new schema cannot read what the old one wrote.
    #[error(
        "the schema is not compatible with the one registered under {subject}: {message}; add fields with defaults instead"
    )]
    Incompatible {
        /// The subject.
        subject: String,
        /// What the registry says.
        message: String,
    },
    /// The registry does not accept the request.
    #[error("the registry refused: {message} (error {code})")]
    Refused {
        /// The registry's error code.
        code: i64,
        /// What it says.
        message: String,
    },
}

/// A client; clones share connections and schemas.
#[derive(Clone)]
pub struct RegistryClient {
    inner: Arc<Inner>,
}

struct Inner {
    http: Client,
    base: Url,
    settings: RegistrySettings,
    found: ArcSwap<BTreeMap<u32, Arc<WriterSchema>>>,
    /// Ids in the order they came, to know which to let go; also serialises changes of `found`.
    order: Mutex<VecDeque<u32>>,
    under_way: Mutex<BTreeMap<u32, Flight>>,
    /// What cannot be used, and since when.
    unusable: Mutex<BTreeMap<u32, (Instant, SchemaError)>>,
    folder: Option<SchemaFolder>,
}

type Answer = Result<Arc<WriterSchema>, SchemaError>;
type Flight = Shared<BoxFuture<'static, Answer>>;

#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(default, rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<Reference>>,
}

#[derive(Clone, Deserialize)]
struct Reference {
    subject: String,
    version: u32,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error_code: i64,
    #[serde(default)]
    message: String,
}

/// A schema registered under a subject.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SubjectVersion {
    /// Id of the schema.
    pub id: u32,
    /// Version within the subject, from 1.
    pub version: u32,
    /// The schema.
    pub schema: String,
}

/// What the registry answered: the value, or its error with the HTTP status.
struct Failure {
    status: StatusCode,
    error: Option<ErrorAnswer>,
}

enum CallError {
    NoAnswer(String),
    Failure(Failure),
}

impl RegistryClient {
    /// A client; opens no connection yet.
    pub fn new(settings: RegistrySettings) -> Result<Self, RegistryError> {
        let bad = |reason: String| RegistryError::Url { url: settings.url.clone(), reason };
        let base = Url::parse(&settings.url).map_err(|error| bad(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(bad("it must begin with http:// or https://".into()));
        }
        // A registry is a neighbour: asking it through a proxy of the environment would break the one on loopback.
        let http = Client::builder()
            .timeout(settings.timeout)
            .connect_timeout(settings.timeout)
            .no_proxy()
            .build()
            .map_err(|error| RegistryError::Unavailable { reason: with_causes(&error) })?;
        let folder = settings.cache_path.clone().map(|path| {
            let mut named = base.clone();
            // Who asks is no part of which registry it is, and a password must not come near a disk.
            let _ = named.set_username("").and_then(|()| named.set_password(None));
            SchemaFolder::new(path, named.as_str())
        });
        let inner = Inner {
            http,
            base,
            settings,
            found: ArcSwap::default(),
            order: Mutex::default(),
            under_way: Mutex::default(),
            unusable: Mutex::default(),
            folder,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Registers a schema under a subject and returns its id; registering it again returns the same.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let body = json!({ "schema": schema, "schemaType": "AVRO" });
        let answer = self.inner.call(Method::POST, &["subjects", subject, "versions"], Some(&body)).await;
        let answer: IdAnswer = answer.map_err(|error| error.about(subject))?;
        Ok(answer.id)
    }

    /// The id and version of exactly this schema under a subject, if it is registered there.
    pub async fn look_up(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Option<SubjectVersion>, RegistryError> {
        let body = json!({ "schema": schema, "schemaType": "AVRO" });
        found(self.inner.call(Method::POST, &["subjects", subject], Some(&body)).await, subject)
    }

    /// The same for a schema that this process needs: what was found is kept, and found again while the registry does not
    /// answer.
    pub async fn look_up_kept(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        let (asked, folder) = (self.look_up(subject, schema).await, self.inner.folder.as_ref());
        match (asked, folder) {
            (Ok(Some(found)), Some(folder)) => {
                folder.keep_id(subject, schema, found.id).await;
                folder.keep_schema(found.id, &found.schema, &[]).await;
                Ok(Some(found.id))
            }
            (Err(error @ RegistryError::Unavailable { .. }), Some(folder)) => {
                let Some(id) = folder.id(subject, schema).await else { return Err(error) };
                tracing::warn!(subject, id, "the schema id is taken from registry.cache_path: {error}");
                Ok(Some(id))
            }
            (asked, _) => Ok(asked?.map(|found| found.id)),
        }
    }

    /// The latest schema of a subject, if it has one.
    pub async fn latest(&self, subject: &str) -> Result<Option<SubjectVersion>, RegistryError> {
        found(self.inner.call(Method::GET, &["subjects", subject, "versions", "latest"], None).await, subject)
    }

    /// The level set for the subject itself, if one is.
    pub async fn compatibility(&self, subject: &str) -> Result<Option<Compatibility>, RegistryError> {
        #[derive(Deserialize)]
        struct Level {
            #[serde(rename = "compatibilityLevel")]
            level: Compatibility,
        }
        let answer = self.inner.call(Method::GET, &["config", subject], None).await;
        Ok(found::<Level>(answer, subject)?.map(|answer| answer.level))
    }

    /// Sets the level of a subject. Some registries want the subject to exist first: [`RegistryError::NotFound`].
    pub async fn set_compatibility(&self, subject: &str, level: Compatibility) -> Result<(), RegistryError> {
        let body = json!({ "compatibility": level });
        let answer = self.inner.call::<Value>(Method::PUT, &["config", subject], Some(&body)).await;
        answer.map(drop).map_err(|error| error.about(subject))
    }

    /// Whether the subject's level would accept the schema; true when there is nothing to compare it with.
    pub async fn check(&self, subject: &str, schema: &str) -> Result<bool, RegistryError> {
        #[derive(Deserialize)]
        struct Check {
            is_compatible: bool,
        }
        let body = json!({ "schema": schema, "schemaType": "AVRO" });
        let path = ["compatibility", "subjects", subject, "versions", "latest"];
        let answer = found::<Check>(self.inner.call(Method::POST, &path, Some(&body)).await, subject)?;
        Ok(answer.is_none_or(|check| check.is_compatible))
    }
}

#[async_trait]
impl SchemaSource for RegistryClient {
    async fn schema(&self, id: u32) -> Answer {
        // Ids are signed 32-bit numbers to a registry; asked for a larger one, Apicurio answers as if the path were wrong,
        // and a producer could stall its partition by a few bytes.
        if i32::try_from(id).is_err() {
            return Err(SchemaError::Unknown { id });
        }
        if let Some(error) = self.inner.unusable(id) {
            return Err(error);
        }
        let flight = {
            let mut under_way = self.inner.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(schema) = self.cached(id) {
                return Ok(schema);
            }
            under_way.entry(id).or_insert_with(|| Inner::begin(&self.inner, id)).clone()
        };
        flight.await
    }

    fn cached(&self, id: u32) -> Option<Arc<WriterSchema>> {
        self.inner.found.load().get(&id).cloned()
    }
}

impl Inner {
    /// Asks for a schema on a task of its own, so that it ends even when everyone who waits has gone.
    fn begin(inner: &Arc<Inner>, id: u32) -> Flight {
        let task = tokio::spawn({
            let inner = Arc::clone(inner);
            async move {
                let answer = inner.fetch_or_find(id).await.map(Arc::new);
                match &answer {
                    Ok(schema) => inner.keep(schema),
                    Err(error @ SchemaError::Invalid { .. }) => inner.remember_unusable(id, error),
                    Err(SchemaError::Unknown { .. } | SchemaError::Unavailable { .. }) => {}
                }
                inner.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                answer
            }
        });
        let inner = Arc::downgrade(inner);
        let flight = async move {
            task.await.unwrap_or_else(|error| {
                if let Some(inner) = inner.upgrade() {
                    inner.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                }
                Err(SchemaError::Unavailable { reason: format!("the request was dropped: {error}") })
            })
        };
        flight.boxed().shared()
    }

    fn keep(&self, schema: &Arc<WriterSchema>) {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::clone(&self.found.load());
        if found.insert(schema.id(), Arc::clone(schema)).is_none() {
            order.push_back(schema.id());
        }
        while order.len() > MAX_CACHED
            && let Some(oldest) = order.pop_front()
        {
            found.remove(&oldest);
        }
        self.found.store(Arc::new(found));
    }

    fn unusable(&self, id: u32) -> Option<SchemaError> {
        let unusable = self.unusable.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, error) = unusable.get(&id)?;
        (since.elapsed() < UNUSABLE_FOR).then(|| error.clone())
    }

    fn remember_unusable(&self, id: u32, error: &SchemaError) {
        let mut unusable = self.unusable.lock().unwrap_or_else(PoisonError::into_inner);
        unusable.retain(|_, (since, _)| since.elapsed() < UNUSABLE_FOR);
        if unusable.len() >= MAX_CACHED {
            unusable.pop_first();
        }
        unusable.insert(id, (Instant::now(), error.clone()));
    }

    /// From the registry, or from disk while it does not answer. What the registry says wins.
    async fn fetch_or_find(&self, id: u32) -> Result<WriterSchema, SchemaError> {
        let fetched = self.fetch(id).await;
        let Some(folder) = &self.folder else { return fetched.map(|(schema, _)| schema) };
        match fetched {
            Ok((schema, references)) => {
                folder.keep_schema(id, schema.text(), &references).await;
                Ok(schema)
            }
            Err(error @ SchemaError::Unavailable { .. }) => {
                let kept = folder.schema(id).await.ok_or_else(|| error.clone())?;
                tracing::warn!(id, "the schema is taken from registry.cache_path: {error}");
                Ok(kept)
            }
            Err(error) => {
                folder.forget_schema(id).await;
                Err(error)
            }
        }
    }

    async fn fetch(&self, id: u32) -> Result<(WriterSchema, Vec<String>), SchemaError> {
        let path = ["schemas", "ids", &id.to_string()];
        let answer: SchemaAnswer =
            self.call(Method::GET, &path, None).await.map_err(|error| error.about_schema(id, 40403))?;
        let invalid = |reason: String| SchemaError::Invalid { id, reason };
        if let Some(other) = answer.schema_type.filter(|kind| kind != "AVRO") {
            return Err(invalid(format!("it is {other}, not Avro")));
        }
        let mut wanted: VecDeque<Reference> = answer.references.unwrap_or_default().into();
        let mut references = BTreeMap::new();
        while let Some(Reference { subject, version }) = wanted.pop_front() {
            if references.len() >= MAX_REFERENCES {
                return Err(invalid(format!("it refers to more than {MAX_REFERENCES} schemas")));
            }
            if references.contains_key(&(subject.clone(), version)) {
                continue;
            }
            let path = ["subjects", &subject, "versions", &version.to_string()];
            let answer: SchemaAnswer =
                self.call(Method::GET, &path, None).await.map_err(|error| error.about_schema(id, 0))?;
            wanted.extend(answer.references.unwrap_or_default());
            references.insert((subject, version), answer.schema);
        }
        let references: Vec<String> = references.into_values().collect();
        let schema = WriterSchema::parse_with_references(id, &answer.schema, &references)?;
        Ok((schema, references))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<T, CallError> {
        let no_answer = |error: reqwest::Error| CallError::NoAnswer(with_causes(&error.without_url()));
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.http.request(method, url);
        if let Some(user) = &self.settings.user {
            let password = self.settings.password.as_ref().map(|password| password.expose_secret());
            request = request.basic_auth(user, password);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(CallError::NoAnswer(format!("its answer exceeds {MAX_ANSWER_BYTES} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let error = serde_json::from_slice(&bytes).ok();
            return Err(CallError::Failure(Failure { status, error }));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            CallError::NoAnswer(format!("its answer is not what Confluent's API says: {error}"))
        })
    }
}

/// What a subject has, or nothing when the registry says that it does not exist.
fn found<T>(answer: Result<T, CallError>, subject: &str) -> Result<Option<T>, RegistryError> {
    match answer.map_err(|error| error.about(subject)) {
        Ok(answer) => Ok(Some(answer)),
        Err(RegistryError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl CallError {
    /// The error of a call about one schema id. `unknown` is the code by which the registry says that it does not exist.
    fn about_schema(self, id: u32, unknown: i64) -> SchemaError {
        match self {
            CallError::Failure(Failure { status: StatusCode::NOT_FOUND, error: Some(error) })
                if error.error_code == unknown =>
            {
                SchemaError::Unknown { id }
            }
            CallError::Failure(failure) => SchemaError::Unavailable { reason: failure.to_string() },
            CallError::NoAnswer(reason) => SchemaError::Unavailable { reason },
        }
    }

    /// The error of a call about a subject.
    fn about(self, subject: &str) -> RegistryError {
        let Failure { status, error } = match self {
            CallError::NoAnswer(reason) => return RegistryError::Unavailable { reason },
            CallError::Failure(failure) => failure,
        };
        let Some(ErrorAnswer { error_code: code, message }) = error else {
            return RegistryError::Unavailable { reason: Failure { status, error: None }.to_string() };
        };
        match status {
            // 40401 subject, 40402 version, 40403 schema, 40408 level of a subject.
            StatusCode::NOT_FOUND if (40401..=40499).contains(&code) => {
                RegistryError::NotFound { what: format!("{subject}: {message}") }
            }
            StatusCode::CONFLICT => RegistryError::Incompatible { subject: subject.to_owned(), message },
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                RegistryError::Refused { code, message }
            }
            _ => {
                let error = Some(ErrorAnswer { error_code: code, message });
                RegistryError::Unavailable { reason: Failure { status, error }.to_string() }
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it answered HTTP {}", self.status)?;
        if let Some(error) = &self.error {
            let message: String = error.message.chars().take(200).collect();
            write!(f, ", error {}: {message}", error.error_code)?;
        }
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                f.write_str("; check registry.user and registry.password")
            }
            StatusCode::NOT_FOUND => f.write_str("; check the path in registry.url"),
            _ => Ok(()),
        }
    }
}

/// An error with all that it says about its causes; reqwest keeps the useful part there.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
