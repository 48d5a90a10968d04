//! The audit table, read as it stands, past all code of campaignd.

use futures::TryStreamExt;
use serde_json::Value;

use crate::suite::Services;
use crate::support::blocking;
use crate::support::model::Expected;
use crate::support::settings::Store;
use crate::support::stage::Stage;

/// Every row of the table, in no order.
pub fn audit_rows(services: &Services, stage: &Stage) -> Vec<Expected> {
    let Store::Scylla { keyspace, .. } = &stage.settings.store else { panic!("the stage has no Cassandra") };
    let lines: Vec<(String,)> = blocking(async {
        let session = scylla::client::session_builder::SessionBuilder::new()
            .known_node(&services.cassandra)
            .build()
            .await
            .expect("Cassandra answers");
        let rows = session.query_iter(format!("SELECT decision FROM {keyspace}.decisions"), &[]).await;
        let rows =
            rows.expect("the audit table can be read").rows_stream::<(String,)>().expect("a text column");
        rows.try_collect().await.expect("all rows can be read")
    });
    lines.iter().map(|(line,)| row(&serde_json::from_str(line).expect("a row is JSON"))).collect()
}

fn row(json: &Value) -> Expected {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    Expected {
        user_id: text(&json["user_id"]),
        event_id: text(&json["event_id"]),
        campaign_id: text(&json["campaign_id"]),
        outcome: text(&json["outcome"]),
        reason: text(&json["reason"]),
        outranked_by: json.get("outranked_by").and_then(Value::as_str).map(str::to_owned),
        occurred_at_ms: json["occurred_at_ms"].as_i64().expect("milliseconds"),
        decision_id: text(&json["decision_id"]),
    }
}
