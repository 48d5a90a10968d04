//! The configuration file of a process under test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::kafka::Kafka;

/// Where state is kept.
#[derive(Clone, Debug)]
pub enum Store {
    /// In a folder.
    Embedded(PathBuf),
    /// In a keyspace of Cassandra.
    Scylla {
        /// `host:port`.
        node: String,
        /// Keyspace of this test alone.
        keyspace: String,
        /// Local datacenter.
        datacenter: String,
    },
}

/// What a story may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Broker.
    pub brokers: String,
    /// URL of the registry.
    pub registry: String,
    /// Store.
    pub store: Store,
    /// Put before every topic and group name.
    pub prefix: String,
    /// Instance id within the group.
    pub instance: String,
    /// Whether the instance comes back to its partitions under its instance id.
    pub static_membership: bool,
    /// Lanes.
    pub lanes: usize,
    /// Records a batch at most.
    pub batch_max_records: usize,
    /// Port of `/metrics`.
    pub http_port: u16,
    /// How long a shutdown may take.
    pub grace_ms: u64,
    /// Delays of the retry topics.
    pub retry_delays_ms: Vec<u64>,
    /// Attempts of a record that fails by its own fault.
    pub retry_max_attempts: u32,
}

impl Settings {
    /// Usual values of a test: many lanes, batches small enough that there are many.
    pub fn new(kafka: &Kafka, registry: &str, store: Store, prefix: &str) -> Settings {
        Settings {
            brokers: kafka.brokers.clone(),
            registry: registry.to_owned(),
            store,
            prefix: prefix.to_owned(),
            instance: "a".to_owned(),
            static_membership: true,
            lanes: 4,
            batch_max_records: 500,
            http_port: free_port(),
            grace_ms: 10_000,
            retry_delays_ms: vec![100, 400],
            retry_max_attempts: 2,
        }
    }

    /// Name of a topic of this test.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The retry topics, tier 1 first.
    pub fn retry_topics(&self) -> Vec<String> {
        (1..=self.retry_delays_ms.len()).map(|tier| self.topic(&format!("events.retry.{tier}"))).collect()
    }

    /// The consumer group of this test.
    pub fn group(&self) -> String {
        format!("{}campaignd", self.prefix)
    }

    /// The group of the projection.
    pub fn audit_group(&self) -> String {
        format!("{}-audit", self.group())
    }

    /// Writes the file and returns where it is.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let store = match &self.store {
            Store::Embedded(path) => {
                format!("kind = \"embedded\"\n[store.embedded]\npath = {path:?}\n")
            }
            Store::Scylla { node, keyspace, datacenter } => format!(
                "kind = \"scylla\"\n[store.scylla]\nnodes = [{node:?}]\nkeyspace = {keyspace:?}\nlocal_datacenter = {datacenter:?}\nreplication_factor = 1\n"
            ),
        };
        let text = format!(
            "[kafka]\nbrokers = {:?}\n\n\
             [group]\nid = {:?}\ninstance_id = {:?}\nstatic_membership = {}\nsession_timeout_ms = 6000\n\
             transaction_timeout_ms = 10000\ndrain_timeout_ms = 3000\n\n\
             [topics]\nevents = {:?}\ncampaigns = {:?}\ndecisions = {:?}\nactivity = {:?}\ndlq = {:?}\nretry = {:?}\n\n\
             [registry]\nurl = {:?}\ncache_path = {:?}\n\n\
             [store]\n{store}\n\
             [pipeline]\nlanes = {}\nbatch_max_records = {}\nbatch_max_records_per_user = {}\nmax_record_bytes = 65536\n\n\
             [retry]\ndelays_ms = {:?}\nmax_attempts = {}\n\n\
             [http]\nbind = \"127.0.0.1:{}\"\n\n\
             [log]\nformat = \"human\"\n\n\
             [shutdown]\ngrace_ms = {}\n",
            self.brokers,
            self.group(),
            self.instance,
            self.static_membership,
            self.topic("events"),
            self.topic("campaigns"),
            self.topic("decisions"),
            self.topic("activity"),
            self.topic("events.dlq"),
            self.topic("events.retry"),
            self.registry,
            folder.join(format!("{}-schemas", self.instance)),
            self.lanes,
            self.batch_max_records,
            self.batch_max_records.div_ceil(2),
            self.retry_delays_ms,
            self.retry_max_attempts,
            self.http_port,
            self.grace_ms,
        );
        let path = folder.join(format!("{}.toml", self.instance));
        std::fs::write(&path, text).expect("the configuration file is written");
        path
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it has an address").port()
}
