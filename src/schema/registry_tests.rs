//! The client against the embedded registry, and against registries that misbehave.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::embedded::EmbeddedRegistry;
use super::registration::{Subjects, look_up_all, register_all};
use super::registry::{Compatibility, RegistryClient, RegistryError, RegistrySettings};
use super::*;

const FIRST: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;
const WITH_DEFAULT: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"b","type":"long","default":0}]}"#;
const WITHOUT_DEFAULT: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"c","type":"long"}]}"#;
const OTHER_TYPE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;

fn client(url: &str) -> RegistryClient {
    RegistryClient::new(RegistrySettings::at(url)).unwrap()
}

#[tokio::test]
async fn a_schema_is_registered_once_and_found_again() {
    let registry = EmbeddedRegistry::start().await.unwrap();
    let client = client(&registry.url());
    let id = client.register("s-value", FIRST).await.unwrap();
    assert_eq!(client.register("s-value", &FIRST.replace(',', ", ")).await, Ok(id));
    assert_eq!(client.register("other-value", FIRST).await, Ok(id));
    assert_eq!(client.schema(id).await.unwrap().text(), FIRST);
    assert!(client.cached(id).is_some());
    assert_eq!(client.schema(id + 1).await.unwrap_err(), SchemaError::Unknown { id: id + 1 });
    assert!(client.cached(id + 1).is_none());
    let latest = client.latest("s-value").await.unwrap().unwrap();
    assert_eq!((latest.id, latest.version, latest.schema.as_str()), (id, 1, FIRST));
    assert_eq!(client.look_up("s-value", FIRST).await.unwrap(), Some(latest));
    assert_eq!(client.look_up("s-value", OTHER_TYPE).await, Ok(None));
    assert_eq!(client.look_up("nobody-value", FIRST).await, Ok(None));
    assert_eq!(client.latest("nobody-value").await, Ok(None));
    // An unknown id is asked for anew: it may be registered meanwhile.
    assert_eq!(client.register("s-value", WITH_DEFAULT).await, Ok(id + 1));
    assert_eq!(client.schema(id + 1).await.unwrap().id(), id + 1);
}

#[tokio::test]
async fn incompatible_schemas_are_refused() {
    let registry = EmbeddedRegistry::start().await.unwrap();
    let client = client(&registry.url());
    assert_eq!(client.check("s-value", FIRST).await, Ok(true));
    client.register("s-value", FIRST).await.unwrap();
    for bad in [WITHOUT_DEFAULT, OTHER_TYPE] {
        assert_eq!(client.check("s-value", bad).await, Ok(false));
        let refused = client.register("s-value", bad).await;
        assert!(matches!(refused, Err(RegistryError::Incompatible { .. })), "{refused:?}");
    }
    assert_eq!(client.check("s-value", WITH_DEFAULT).await, Ok(true));
    client.register("s-value", WITH_DEFAULT).await.unwrap();
    assert_eq!(client.compatibility("s-value").await, Ok(None));
    client.set_compatibility("s-value", Compatibility::None).await.unwrap();
    assert_eq!(client.compatibility("s-value").await, Ok(Some(Compatibility::None)));
    client.register("s-value", OTHER_TYPE).await.unwrap();
    assert_eq!(client.latest("s-value").await.unwrap().unwrap().version, 3);
    let refused = client.register("s-value", "{").await;
    assert!(matches!(refused, Err(RegistryError::Refused { code: 42201, .. })), "{refused:?}");
    let refused = client.set_compatibility("s-value", Compatibility::Full).await;
    assert!(matches!(refused, Err(RegistryError::Refused { code: 42203, .. })), "{refused:?}");
}

#[tokio::test]
async fn our_schemas_are_registered_and_looked_up() {
    let registry = EmbeddedRegistry::start().await.unwrap();
    let client = client(&registry.url());
    let subjects = Subjects::of_topics("events", "decisions", "activity");
    let missing = look_up_all(&client, &subjects).await.unwrap_err();
    assert!(missing.to_string().contains("campaignd schemas register"), "{missing}");
    let first = register_all(&client, &subjects).await.unwrap();
    assert!(first.subjects.iter().all(|s| s.created && s.compatibility == Compatibility::Backward));
    assert_eq!(client.compatibility("decisions-value").await, Ok(Some(Compatibility::Backward)));
    assert_eq!(look_up_all(&client, &subjects).await, Ok(first.ids));
    client.set_compatibility("events-value", Compatibility::None).await.unwrap();
    let again = register_all(&client, &subjects).await.unwrap();
    assert_eq!(again.ids, first.ids);
    assert!(again.subjects.iter().all(|s| !s.created));
    assert_eq!(again.subjects[0].compatibility, Compatibility::None, "a level that was set stays");
    let event = client.schema(first.ids.event).await.unwrap();
    assert_eq!(event.text(), EVENT_SCHEMA);
}

/// A registry that answers every request for a schema as told.
async fn misbehaving(status: u16, body: &'static str) -> String {
    let answer = move || async move { (StatusCode::from_u16(status).unwrap(), body) };
    serve(Router::new().fallback(answer)).await
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn only_40403_means_unknown_and_no_error_is_kept() {
    let message = r#"{"error_code":40403,"message":"Schema not found"}"#;
    let unknown = client(&misbehaving(404, message).await).schema(1).await;
    assert_eq!(unknown.unwrap_err(), SchemaError::Unknown { id: 1 });
    for (status, body) in [
        (404, "not here"),
        (404, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#),
        (404, r#"{"error_code":40401,"message":"Subject not found"}"#),
        (500, message),
        (500, r#"{"error_code":50001,"message":"backend"}"#),
        (502, ""),
        (503, ""),
        (504, ""),
        (429, ""),
        (401, ""),
        (403, r#"{"error_code":40301,"message":"no"}"#),
        (400, ""),
        (200, "<html>"),
    ] {
        let client = client(&misbehaving(status, body).await);
        let error = client.schema(1).await.unwrap_err();
        assert!(matches!(error, SchemaError::Unavailable { .. }), "{status} {body}: {error}");
        assert!(client.cached(1).is_none());
        let error = client.register("s", FIRST).await.unwrap_err();
        let unclear = matches!(error, RegistryError::Unavailable { .. } | RegistryError::NotFound { .. });
        assert!(unclear, "{status} {body}: {error}");
    }
    let invalid = client(&misbehaving(200, r#"{"schema":"{"}"#).await).schema(1).await.unwrap_err();
    assert!(matches!(invalid, SchemaError::Invalid { id: 1, .. }), "{invalid}");
    let protobuf = misbehaving(200, r#"{"schemaType":"PROTOBUF","schema":"syntax = 3"}"#).await;
    let invalid = client(&protobuf).schema(1).await.unwrap_err();
    assert!(matches!(invalid, SchemaError::Invalid { id: 1, .. }), "{invalid}");
}

#[tokio::test]
async fn a_registry_that_is_not_there_or_does_not_answer_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut settings = RegistrySettings::at(&url);
    settings.timeout = std::time::Duration::from_millis(50);
    // The listener accepts and says nothing.
    let silent = RegistryClient::new(settings).unwrap().schema(1).await.unwrap_err();
    assert!(matches!(silent, SchemaError::Unavailable { .. }), "{silent}");
    drop(listener);
    let refused = client(&url).schema(1).await.unwrap_err();
    assert!(matches!(refused, SchemaError::Unavailable { .. }), "{refused}");
    for url in ["", "127.0.0.1:8081", "ftp://x", "mailto:x"] {
        assert!(
            matches!(RegistryClient::new(RegistrySettings::at(url)), Err(RegistryError::Url { .. })),
            "{url}"
        );
    }
}

#[tokio::test]
async fn a_registry_that_recovers_is_believed_and_one_that_floods_is_not() {
    let calls = Arc::new(AtomicUsize::new(0));
    let answer = {
        let calls = Arc::clone(&calls);
        move || async move {
            match calls.fetch_add(1, Ordering::SeqCst) {
                0 => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
                _ => (StatusCode::OK, serde_json::json!({ "schema": FIRST }).to_string()),
            }
        }
    };
    let client = client(&serve(Router::new().fallback(answer)).await);
    assert!(matches!(client.schema(1).await, Err(SchemaError::Unavailable { .. })));
    assert_eq!(client.schema(1).await.unwrap().text(), FIRST);
    assert_eq!(client.schema(1).await.unwrap().text(), FIRST);
    assert_eq!(calls.load(Ordering::SeqCst), 2, "what was found is not asked for again");

    let flood = Router::new().fallback(|| async { "x".repeat(3 * 1024 * 1024) });
    let error = super::registry_tests::client(&serve(flood).await).schema(1).await.unwrap_err();
    assert!(error.to_string().contains("exceeds"), "{error}");
}

#[tokio::test]
async fn requests_for_one_id_are_one_request() {
    let (calls, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let answer = {
        let (calls, release) = (Arc::clone(&calls), Arc::clone(&release));
        move || async move {
            calls.fetch_add(1, Ordering::SeqCst);
            release.notified().await;
            serde_json::json!({ "schema": FIRST }).to_string()
        }
    };
    let client = client(&serve(Router::new().route("/schemas/ids/1", get(answer))).await);
    let waiting = (0..20).map(|_| client.schema(1));
    let (all, ()) = futures::join!(futures::future::join_all(waiting), async { release.notify_one() });
    assert!(all.iter().all(|schema| schema.as_ref().unwrap().id() == 1));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn user_and_password_are_sent_and_a_refusal_names_the_settings() {
    let answer = |headers: axum::http::HeaderMap| async move {
        // "reader:secret" in base 64.
        let known = headers.get("authorization").is_some_and(|value| value == "Basic cmVhZGVyOnNlY3JldA==");
        let status = if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        (status, serde_json::json!({ "schema": FIRST }).to_string())
    };
    let mut settings = RegistrySettings::at(&serve(Router::new().fallback(answer)).await);
    let refused = RegistryClient::new(settings.clone()).unwrap().schema(1).await.unwrap_err().to_string();
    assert!(refused.contains("registry.user and registry.password"), "{refused}");
    settings.user = Some("reader".into());
    settings.password = Some("secret".to_owned().into());
    assert!(!format!("{settings:?}").contains("secret"));
    assert_eq!(RegistryClient::new(settings).unwrap().schema(1).await.unwrap().id(), 1);
}

#[tokio::test]
async fn references_are_fetched() {
    let order = serde_json::json!({
        "schema": r#"{"type":"record","name":"Order","fields":[{"name":"total","type":"shop.Money"}]}"#,
        "references": [{ "name": "shop.Money", "subject": "money/v", "version": 2 }],
    });
    let money = serde_json::json!({
        "schema": r#"{"type":"record","name":"shop.Money","fields":[{"name":"cents","type":"long"}]}"#,
    });
    let router = Router::new()
        .route("/base/schemas/ids/5", get(|| async move { order.to_string() }))
        .route("/base/subjects/money%2Fv/versions/2", get(|| async move { money.to_string() }));
    let url = serve(router).await;
    assert_eq!(client(&format!("{url}/base/")).schema(5).await.unwrap().id(), 5);
    // The referenced schema is gone: that says nothing certain about the schema itself.
    assert!(matches!(client(&url).schema(5).await, Err(SchemaError::Unavailable { .. })));
}

#[tokio::test]
async fn an_id_beyond_those_of_a_registry_is_unknown_and_not_asked_for() {
    let ill = client(&misbehaving(500, "").await);
    for id in [0x8000_0000, u32::MAX] {
        assert_eq!(ill.schema(id).await.unwrap_err(), SchemaError::Unknown { id });
    }
    assert!(matches!(ill.schema(0x7fff_ffff).await, Err(SchemaError::Unavailable { .. })));
}
