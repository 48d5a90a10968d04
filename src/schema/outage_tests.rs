//! The client while the registry does not answer: what was found before serves, and nothing is made of the silence.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use tokio::net::TcpListener;

use super::embedded::EmbeddedRegistry;
use super::registration::{Subjects, look_up_all, look_up_event, register_all};
use super::registry::{RegistryClient, RegistryError, RegistrySettings};
use super::*;

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;
const UNKNOWN: &str = r#"{"error_code":40403,"message":"Schema not found"}"#;

fn client(url: &str, folder: &tempfile::TempDir) -> RegistryClient {
    let cache_path = Some(folder.path().join("schemas"));
    let timeout = Duration::from_millis(200);
    RegistryClient::new(RegistrySettings { cache_path, timeout, ..RegistrySettings::at(url) }).unwrap()
}

/// A registry that knows one schema under every id and subject, until it is told to answer a status, or nothing at all.
struct Moody {
    url: String,
    status: Arc<AtomicU16>,
    calls: Arc<AtomicUsize>,
}

const SILENT: u16 = 0;

async fn moody(schema: &'static str) -> Moody {
    let (status, calls) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
    let answer = {
        let (status, calls) = (Arc::clone(&status), Arc::clone(&calls));
        move || async move {
            calls.fetch_add(1, Ordering::SeqCst);
            match status.load(Ordering::SeqCst) {
                SILENT => std::future::pending().await,
                200 => {
                    let body = serde_json::json!({ "schema": schema, "id": 7, "version": 1 });
                    (StatusCode::OK, body.to_string())
                }
                404 => (StatusCode::NOT_FOUND, UNKNOWN.to_owned()),
                // A proxy in front may repeat the body of an old answer: the status alone says that it is none.
                other => (StatusCode::from_u16(other).unwrap(), UNKNOWN.to_owned()),
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    Moody { url, status, calls }
}

#[tokio::test]
async fn a_restart_needs_no_registry_when_all_was_found_before() {
    let folder = tempfile::tempdir().unwrap();
    let registry = EmbeddedRegistry::start().await.unwrap();
    let url = registry.url();
    let first = client(&url, &folder);
    let subjects = Subjects::of_topics("events", "decisions", "activity");
    let ids = register_all(&first, &subjects).await.unwrap().ids;
    let foreign = first.register("other-value", SCHEMA).await.unwrap();
    assert_eq!(look_up_all(&first, &subjects).await, Ok(ids));
    first.schema(foreign).await.unwrap();
    let never_asked = first.register("late-value", &SCHEMA.replace("\"R\"", "\"Late\"")).await.unwrap();
    drop(registry);

    let second = client(&url, &folder);
    assert_eq!(look_up_all(&second, &subjects).await, Ok(ids));
    assert_eq!(look_up_event(&second, &subjects).await, Ok(ids.event));
    assert_eq!(second.schema(foreign).await.unwrap().text(), SCHEMA);
    for (id, text) in
        [(ids.event, EVENT_SCHEMA), (ids.decision, DECISION_SCHEMA), (ids.activity, ACTIVITY_SCHEMA)]
    {
        assert_eq!(second.schema(id).await.unwrap().text(), text, "what was looked up needs no second call");
    }
    assert!(matches!(second.schema(never_asked).await, Err(SchemaError::Unavailable { .. })));
    let others = Subjects::of_topics("events2", "decisions", "activity");
    assert!(matches!(look_up_all(&second, &others).await, Err(RegistryError::Unavailable { .. })));
    let without = RegistryClient::new(RegistrySettings::at(&url)).unwrap();
    assert!(matches!(look_up_all(&without, &subjects).await, Err(RegistryError::Unavailable { .. })));
}

#[tokio::test]
async fn every_kind_of_silence_leaves_known_schemas_and_makes_nothing_unknown() {
    for status in [500, 502, 503, 504, 429, 401, 403, 400, SILENT] {
        let folder = tempfile::tempdir().unwrap();
        let registry = moody(SCHEMA).await;
        let before = client(&registry.url, &folder);
        before.schema(1).await.unwrap();
        registry.status.store(status, Ordering::SeqCst);
        assert!(before.schema(1).await.is_ok(), "{status}: from memory");
        assert!(matches!(before.schema(2).await, Err(SchemaError::Unavailable { .. })), "{status}");
        let after = client(&registry.url, &folder);
        assert_eq!(after.schema(1).await.unwrap().text(), SCHEMA, "{status}: from disk");
        assert!(matches!(after.schema(2).await, Err(SchemaError::Unavailable { .. })), "{status}");
        registry.status.store(200, Ordering::SeqCst);
        assert!(after.schema(2).await.is_ok(), "{status}: the silence is forgotten");
    }
}

#[tokio::test]
async fn the_registrys_word_that_an_id_is_unknown_wins_over_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let registry = moody(SCHEMA).await;
    client(&registry.url, &folder).schema(1).await.unwrap();
    registry.status.store(404, Ordering::SeqCst);
    let later = client(&registry.url, &folder);
    assert_eq!(later.schema(1).await.unwrap_err(), SchemaError::Unknown { id: 1 });
    registry.status.store(500, Ordering::SeqCst);
    assert!(
        matches!(later.schema(1).await, Err(SchemaError::Unavailable { .. })),
        "what the registry has forgotten is not kept either"
    );
    registry.status.store(200, Ordering::SeqCst);
    assert!(later.schema(1).await.is_ok());
}

#[tokio::test]
async fn a_damaged_file_is_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let registry = moody(SCHEMA).await;
    client(&registry.url, &folder).schema(1).await.unwrap();
    let damage = || {
        for entry in std::fs::read_dir(folder.path().join("schemas")).unwrap() {
            std::fs::write(entry.unwrap().path(), "damaged").unwrap();
        }
    };
    damage();
    registry.status.store(500, Ordering::SeqCst);
    let later = client(&registry.url, &folder);
    assert!(matches!(later.schema(1).await, Err(SchemaError::Unavailable { .. })));
    registry.status.store(200, Ordering::SeqCst);
    assert!(later.schema(1).await.is_ok());
    registry.status.store(500, Ordering::SeqCst);
    assert!(client(&registry.url, &folder).schema(1).await.is_ok(), "it was written anew");
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_is_asked_for_once_a_minute_and_kept_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let registry = moody("{").await;
    let client = client(&registry.url, &folder);
    for _ in 0..10 {
        assert!(matches!(client.schema(1).await, Err(SchemaError::Invalid { id: 1, .. })));
    }
    assert_eq!(registry.calls.load(Ordering::SeqCst), 1);
    assert!(matches!(client.schema(2).await, Err(SchemaError::Invalid { id: 2, .. })));
    assert_eq!(registry.calls.load(Ordering::SeqCst), 2);
    assert!(!folder.path().join("schemas").exists());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert!(matches!(client.schema(1).await, Err(SchemaError::Invalid { id: 1, .. })));
    assert_eq!(registry.calls.load(Ordering::SeqCst), 3);
}
