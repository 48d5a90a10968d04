//! The database keeps the store contract, and its tables are made, checked and refused as the commands say.

use std::time::Duration;

use campaignd::store::scylla::{ScyllaStore, Settings};
use campaignd::store::{StateStore, StoreError, migrate};
use scylla::client::session_builder::SessionBuilder;
use tokio::sync::OnceCell;

use crate::suite::{Services, Suite};
use crate::support::unique;

#[path = "../support/store_contract.rs"]
mod store_contract;

pub fn stories(suite: &mut Suite) {
    macro_rules! contract {
        ($($case:ident,)*) => {
            $(suite.story(concat!("store::contract::", stringify!($case)), async |services| {
                store_contract::$case(&shared(&services).await).await;
            });)*
        };
    }
    store_contract::for_each_case!(contract);
    suite.story("store::migrate_makes_everything_once", migrate_makes_everything_once);
    suite.story("store::missing_tables_say_how_to_make_them", missing_tables_say_how_to_make_them);
    suite.story("store::older_tables_are_refused", older_tables_are_refused);
    suite.story("store::an_unknown_datacenter_is_refused", an_unknown_datacenter_is_refused);
    suite.story("store::no_database_is_unavailable", no_database_is_unavailable);
}

fn settings(services: &Services, keyspace: &str) -> Settings {
    Settings {
        nodes: vec![services.cassandra.clone()],
        keyspace: keyspace.to_owned(),
        local_datacenter: "datacenter1".to_owned(),
        replication_factor: 1,
        credentials: None,
        requests_in_flight: 64,
        request_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(10),
        audit_ttl: Duration::from_secs(86_400),
    }
}

/// A store in the keyspace that all cases of the contract share, because making one takes seconds.
async fn shared(services: &Services) -> ScyllaStore {
    static KEYSPACE: OnceCell<String> = OnceCell::const_new();
    let make = async || {
        let keyspace = unique("store");
        migrate::run(&settings(services, &keyspace)).await.unwrap();
        keyspace
    };
    let keyspace = KEYSPACE.get_or_init(make).await;
    ScyllaStore::connect(&settings(services, keyspace)).await.unwrap()
}

fn refusal<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Refused(text)) => text,
        Err(other) => panic!("not refused: {other:?}"),
        Ok(_) => panic!("not refused"),
    }
}

async fn migrate_makes_everything_once(services: Services) {
    let settings = settings(&services, &unique("migrate"));
    let first = migrate::run(&settings).await.unwrap();
    assert!(first.keyspace_created && !first.steps.is_empty(), "{first:?}");
    assert_eq!(first.version, migrate::version());

    let again = migrate::run(&settings).await.unwrap();
    assert_eq!(again, migrate::Report { version: migrate::version(), ..migrate::Report::default() });
    let store = ScyllaStore::connect(&settings).await.unwrap();
    assert_eq!(store.load(&["nobody"]).await.pop().unwrap().unwrap(), None);
}

async fn missing_tables_say_how_to_make_them(services: Services) {
    let text = refusal(ScyllaStore::connect(&settings(&services, &unique("missing"))).await);
    assert!(text.contains("campaignd store migrate"), "{text}");
}

async fn older_tables_are_refused(services: Services) {
    let settings = settings(&services, &unique("older"));
    migrate::run(&settings).await.unwrap();
    let session = SessionBuilder::new().known_node(&services.cassandra).build().await.unwrap();
    let forget = format!("DELETE FROM {}.schema_version WHERE component = 'campaignd'", settings.keyspace);
    session.query_unpaged(forget, ()).await.unwrap();

    let text = refusal(ScyllaStore::connect(&settings).await);
    assert!(text.contains("version 0") && text.contains("campaignd store migrate"), "{text}");
    let repaired = migrate::run(&settings).await.unwrap();
    assert!(
        !repaired.keyspace_created && !repaired.steps.is_empty(),
        "steps run again over their own tables"
    );
    ScyllaStore::connect(&settings).await.unwrap();
}

async fn an_unknown_datacenter_is_refused(services: Services) {
    let elsewhere = Settings { local_datacenter: "mars".to_owned(), ..settings(&services, &unique("dc")) };
    let text = refusal(migrate::run(&elsewhere).await);
    assert!(text.contains("\"mars\"") && text.contains("datacenter1"), "{text}");
}

async fn no_database_is_unavailable(services: Services) {
    // The port was free a moment ago and nobody listens on it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nowhere = Settings { nodes: vec![free.to_string()], ..settings(&services, &unique("nowhere")) };
    let Err(StoreError::Unavailable(text)) = ScyllaStore::connect(&nowhere).await else {
        panic!("connected")
    };
    assert!(text.contains(&free.to_string()), "{text}");
}
