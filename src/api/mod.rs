//! HTTP: metrics, liveness and readiness, on one port.
//!
//! It shows what [`Metrics`] and [`Health`] hold and keeps nothing itself. There is no other way in or out here:
//! events come from Kafka and decisions go to Kafka.

use std::io;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

#[derive(Clone)]
struct Shown {
    metrics: Metrics,
    health: Health,
}

/// Serves `/metrics`, `/livez` and `/readyz` until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(show_liveness))
        .route("/readyz", get(show_readiness))
        .fallback(|| async { (StatusCode::NOT_FOUND, "here are /metrics, /livez and /readyz\n") })
        .with_state(Shown { metrics, health });
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn show_metrics(State(shown): State<Shown>) -> Response {
    match shown.metrics.render() {
        Ok((content_type, body)) => ([(header::CONTENT_TYPE, content_type)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn show_liveness(State(shown): State<Shown>) -> Response {
    match shown.health.dead_because() {
        None => "alive\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn show_readiness(State(shown): State<Shown>) -> Response {
    let report = shown.health.report();
    let ready = report.get("ready").and_then(serde_json::Value::as_bool).unwrap_or(false);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(report)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::health::Condition;
    use crate::telemetry::metrics::EventResult;

    struct Server {
        address: String,
        metrics: Metrics,
        health: Health,
        shutdown: CancellationToken,
        task: tokio::task::JoinHandle<io::Result<()>>,
    }

    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (metrics, health, shutdown) = (Metrics::new().unwrap(), Health::new(), CancellationToken::new());
        let task = tokio::spawn(serve(listener, metrics.clone(), health.clone(), shutdown.clone()));
        Server { address, metrics, health, shutdown, task }
    }

    async fn get(server: &Server, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("{}{path}", server.address)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_conditions_and_names_what_is_missing() {
        let server = start().await;
        server.health.ready(Condition::Campaigns, "12 active at 40");
        server.health.ready(Condition::Assignment, "4 partitions");
        let (status, body) = get(&server, "/readyz").await;
        assert_eq!(status, 503);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["conditions"]["campaigns"]["detail"], "12 active at 40");
        assert_eq!(body["conditions"]["store"]["ready"], false);
        server.health.ready(Condition::Store, "connected");
        assert_eq!(get(&server, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn liveness_ends_with_a_failure() {
        let server = start().await;
        assert_eq!(get(&server, "/livez").await, (200, "alive\n".into()));
        server.health.fail("the disk is full");
        assert_eq!(get(&server, "/livez").await, (503, "the disk is full\n".into()));
    }

    #[tokio::test]
    async fn metrics_are_served_and_other_paths_are_not() {
        let server = start().await;
        server.metrics.events(EventResult::Decided, 3);
        let (status, body) = get(&server, "/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("campaignd_events_total{result=\"decided\"} 3"), "{body}");
        assert_eq!(get(&server, "/").await.0, 404);
    }

    #[tokio::test]
    async fn it_ends_when_told() {
        let server = start().await;
        server.shutdown.cancel();
        server.task.await.unwrap().unwrap();
    }
}
