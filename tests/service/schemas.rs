//! Our schemas and our registry client against a real registry.

use crate::suite::{Services, Suite};
use crate::support::unique;
use campaignd::event::Event;
use campaignd::schema::registration::{Subjects, look_up_all, register_all};
use campaignd::schema::registry::{Compatibility, RegistryClient, RegistryError, RegistrySettings};
use campaignd::schema::{
    ACTIVITY_SCHEMA, DECISION_SCHEMA, EVENT_SCHEMA, SchemaError, SchemaSource, decode_event, encode_event,
};

pub fn stories(suite: &mut Suite) {
    suite
        .story("schemas::changed_schemas_stay_backward_compatible", changed_schemas_stay_backward_compatible);
    suite.story("schemas::registering_and_reading_by_id_works", registering_and_reading_by_id_works);
}

fn client(services: &Services) -> RegistryClient {
    RegistryClient::new(RegistrySettings::at(&services.registry)).unwrap()
}

/// The versions that were released, oldest first. A released file never changes; a release whose schema differs from the
/// last adds the next number here.
const HISTORY: [(&str, &[&str], &str); 3] = [
    ("event", &[include_str!("../../schemas/history/event.1.avsc")], EVENT_SCHEMA),
    ("decision", &[include_str!("../../schemas/history/decision.1.avsc")], DECISION_SCHEMA),
    ("activity", &[include_str!("../../schemas/history/activity.1.avsc")], ACTIVITY_SCHEMA),
];

async fn changed_schemas_stay_backward_compatible(services: Services) {
    let client = client(&services);
    for (name, released, current) in HISTORY {
        let subject = format!("{}-value", unique(name));
        client.register(&subject, released[0]).await.unwrap();
        client.set_compatibility(&subject, Compatibility::Backward).await.unwrap();
        for schema in released[1..].iter().chain([&current]) {
            let accepted = client.register(&subject, schema).await;
            accepted.unwrap_or_else(|error| panic!("schemas/{name}.avsc breaks readers: {error}"));
        }
        let incompatible = [
            // A field that older records lack and that has no default.
            current.replacen(
                r#"{ "name": "user_id","#,
                r#"{ "name": "shop", "type": "string" }, { "name": "user_id","#,
                1,
            ),
            // Another type.
            current.replacen(r#""user_id", "type": "string""#, r#""user_id", "type": "long""#, 1),
        ];
        for schema in incompatible {
            assert_ne!(schema, current);
            assert_eq!(client.check(&subject, &schema).await, Ok(false), "{name}");
            let refused = client.register(&subject, &schema).await;
            assert!(matches!(refused, Err(RegistryError::Incompatible { .. })), "{name}: {refused:?}");
        }
        let with_default = current.replacen(
            r#"{ "name": "user_id","#,
            r#"{ "name": "shop", "type": "string", "default": "" }, { "name": "user_id","#,
            1,
        );
        assert_eq!(client.check(&subject, &with_default).await, Ok(true), "{name}");
        client.register(&subject, &with_default).await.unwrap();
    }
}

async fn registering_and_reading_by_id_works(services: Services) {
    let client = client(&services);
    let topics = [unique("events"), unique("decisions"), unique("activity")];
    let subjects = Subjects::of_topics(&topics[0], &topics[1], &topics[2]);
    assert!(matches!(look_up_all(&client, &subjects).await, Err(RegistryError::NotFound { .. })));
    let registered = register_all(&client, &subjects).await.unwrap();
    for subject in &registered.subjects {
        assert!(subject.created, "{subject:?}");
        assert_eq!(client.compatibility(&subject.subject).await, Ok(Some(Compatibility::Backward)));
    }
    assert_eq!(look_up_all(&client, &subjects).await, Ok(registered.ids));
    let again = register_all(&client, &subjects).await.unwrap();
    assert_eq!(again.ids, registered.ids);
    assert!(again.subjects.iter().all(|subject| !subject.created));

    let event = Event::from_json(
        r#"{"event_id":"e","user_id":"u","type":"purchase","occurred_at":1,"properties":{"amount":29.99}}"#,
    );
    let event = event.unwrap();
    let mut body = Vec::new();
    encode_event(&event, &mut body);
    let schema = client.schema(registered.ids.event).await.unwrap();
    assert_eq!(decode_event(&schema, &body), Ok(event));
    assert_eq!(client.schema(999_999_999).await.unwrap_err(), SchemaError::Unknown { id: 999_999_999 });
}
