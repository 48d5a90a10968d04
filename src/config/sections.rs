//! Every section and key, with its doc line, its default and its range.
//!
//! The sample files `campaignd.example.toml` and `.env.example` are written from these declarations.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use secrecy::SecretString;

use super::setting::{choice, section};

section! {
    /// The whole configuration.
    pub struct Config {
        keys {}
        sections {
            /// How to reach Kafka.
            kafka: Kafka,
            /// The consumer group and its member.
            group: Group,
            /// Names of the topics.
            topics: Topics,
            /// The schema registry (Confluent's API).
            registry: Registry,
            /// Where user state and the audit trail are kept.
            store: Store,
            /// The processor.
            pipeline: Pipeline,
            /// When work waits for an ill store or registry, and how it is found well again.
            breaker: Breaker,
            /// Records that wait to be tried again, and their users with them.
            retry: Retry,
            /// Metrics, liveness and readiness.
            http: Http,
            /// The log, on standard error.
            log: Log,
            /// How the process ends.
            shutdown: Shutdown,
        }
    }
}

section! {
    /// How to reach Kafka.
    pub struct Kafka {
        keys {
            /// Brokers to begin with, host:port, separated by commas.
            brokers: String = "127.0.0.1:9092".into(),
            /// How to talk to the brokers.
            security_protocol: SecurityProtocol = SecurityProtocol::Plaintext,
            /// PEM file of the authorities that may sign the brokers' certificates; unset: those of the system.
            ssl_ca_location: Option<PathBuf> = None,
            /// PEM file of our certificate, for mutual TLS.
            ssl_certificate_location: Option<PathBuf> = None,
            /// PEM file of our private key, for mutual TLS.
            ssl_key_location: Option<PathBuf> = None,
            /// Password of the private key.
            ssl_key_password: Option<SecretString> = None,
            /// How to prove who we are when the protocol is sasl_plaintext or sasl_ssl.
            sasl_mechanism: Option<SaslMechanism> = None,
            /// User for SASL.
            sasl_username: Option<String> = None,
            /// Password for SASL.
            sasl_password: Option<SecretString> = None,
            /// Longest wait for an answer about topics, offsets or transactions, milliseconds.
            #[allowed(1_000..=300_000)]
            timeout_ms: u64 = 30_000,
            /// Further librdkafka properties, passed on as they are; those that the delivery rules rest on are refused.
            librdkafka: BTreeMap<String, String> = BTreeMap::new(),
        }
        sections {}
    }
}

choice! {
    /// Kafka's `security.protocol`.
    pub enum SecurityProtocol {
        /// Neither encrypted nor authenticated.
        Plaintext = "plaintext",
        /// TLS.
        Ssl = "ssl",
        /// SASL without encryption.
        SaslPlaintext = "sasl_plaintext",
        /// SASL over TLS.
        SaslSsl = "sasl_ssl",
    }
}

impl SecurityProtocol {
    /// Whether a SASL login is made.
    pub fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    /// Whether TLS is spoken.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

choice! {
    /// Kafka's `sasl.mechanism`, as far as it needs a user and a password.
    pub enum SaslMechanism {
        /// The password as it is; only over TLS.
        Plain = "PLAIN",
        /// Challenge and response with SHA-256.
        ScramSha256 = "SCRAM-SHA-256",
        /// Challenge and response with SHA-512.
        ScramSha512 = "SCRAM-SHA-512",
    }
}

section! {
    /// The consumer group and its member.
    pub struct Group {
        keys {
            /// Name of the consumer group; all instances that share the work have the same.
            id: String = "campaignd".into(),
            /// Name of this instance, unique in the group and the same after a restart; unset: the host name.
            instance_id: Option<String> = None,
            /// Whether a restart within the session time-out keeps the partitions without a rebalance.
            static_membership: bool = true,
            /// How long an instance may be silent before its partitions go to others, milliseconds.
            #[allowed(6_000..=1_800_000)]
            session_timeout_ms: u64 = 45_000,
            /// How long a transaction may stay open before the broker aborts it, milliseconds.
            #[allowed(1_000..=900_000)]
            transaction_timeout_ms: u64 = 15_000,
            /// How long a rebalance waits for the batch in flight before it is abandoned, milliseconds.
            #[allowed(100..=45_000)]
            drain_timeout_ms: u64 = 10_000,
        }
        sections {}
    }
}

section! {
    /// Names of the topics.
    pub struct Topics {
        keys {
            /// Events in, keyed by user id.
            events: String = "events".into(),
            /// Campaigns and the catalog; compacted, one partition.
            campaigns: String = "campaigns".into(),
            /// Decisions out.
            decisions: String = "decisions".into(),
            /// What users did about campaigns.
            activity: String = "activity".into(),
            /// Records that wait to be tried again: a dot and the number of the tier are put behind it, from 1.
            retry: String = "events.retry".into(),
            /// Records that cannot be handled, byte for byte.
            dlq: String = "events.dlq".into(),
        }
        sections {}
    }
}

section! {
    /// The schema registry (Confluent's API).
    pub struct Registry {
        keys {
            /// Where the registry answers, with the path if it has one, such as http://host:8081/apis/ccompat/v7.
            url: String = "http://127.0.0.1:8081".into(),
            /// User, when the registry asks for one.
            user: Option<String> = None,
            /// Password of the user.
            password: Option<SecretString> = None,
            /// Longest wait for an answer, milliseconds.
            #[allowed(100..=60_000)]
            timeout_ms: u64 = 5_000,
            /// Folder in which schemas are kept, so that a restart needs no registry; made if it is missing.
            cache_path: PathBuf = PathBuf::from("campaignd-schemas"),
        }
        sections {}
    }
}

choice! {
    /// Which store is used.
    pub enum StoreKind {
        /// A ScyllaDB (or Cassandra) cluster.
        Scylla = "scylla",
        /// A folder on this machine; for one instance only.
        Embedded = "embedded",
    }
}

section! {
    /// Where user state and the audit trail are kept.
    pub struct Store {
        keys {
            /// Which store: a ScyllaDB cluster, or a folder on this machine (one instance only).
            kind: StoreKind = StoreKind::Scylla,
        }
        sections {
            /// The ScyllaDB cluster, when kind is "scylla".
            scylla: Scylla,
            /// The folder, when kind is "embedded".
            embedded: Embedded,
        }
    }
}

section! {
    /// The ScyllaDB cluster.
    pub struct Scylla {
        keys {
            /// Nodes to begin with, host:port.
            nodes: Vec<String> = vec!["127.0.0.1:9042".into()],
            /// Keyspace; `campaignd store migrate` creates it.
            keyspace: String = "campaignd".into(),
            /// The datacenter that all instances use; the same for all of them.
            local_datacenter: String = "datacenter1".into(),
            /// Copies of each row in the local datacenter, used when the keyspace is created.
            #[allowed(1..=9)]
            replication_factor: u64 = 3,
            /// User, when the cluster asks for one.
            user: Option<String> = None,
            /// Password of the user.
            password: Option<SecretString> = None,
            /// Requests in flight at a time, all lanes together.
            #[allowed(1..=32_000)]
            requests_in_flight: usize = 512,
            /// Longest wait for one request, milliseconds.
            #[allowed(100..=60_000)]
            request_timeout_ms: u64 = 5_000,
            /// Longest wait for a connection, milliseconds.
            #[allowed(100..=60_000)]
            connect_timeout_ms: u64 = 5_000,
            /// How long audit rows are kept, days.
            #[allowed(1..=3_650)]
            audit_ttl_days: u64 = 400,
        }
        sections {}
    }
}

section! {
    /// The embedded store.
    pub struct Embedded {
        keys {
            /// Folder of the store; made if it is missing.
            path: PathBuf = PathBuf::from("campaignd-data"),
        }
        sections {}
    }
}

choice! {
    /// How the producers of events choose the partition of a key.
    pub enum EventsPartitioner {
        /// As Java's default.
        Murmur2 = "murmur2",
        /// As librdkafka's `consistent` partitioners.
        Crc32 = "crc32",
    }
}

section! {
    /// The processor.
    pub struct Pipeline {
        keys {
            /// Workers that decide in parallel; 0: as many as there are cores.
            #[allowed(0..=256)]
            lanes: usize = 0,
            /// Longest time a record waits for its batch to fill, milliseconds.
            #[allowed(0..=10_000)]
            batch_max_wait_ms: u64 = 5,
            /// Most records in a batch.
            #[allowed(1..=200_000)]
            batch_max_records: usize = 20_000,
            /// Most bytes of keys and values in a batch.
            #[allowed(65_536..=268_435_456)]
            batch_max_bytes: usize = 8 * 1024 * 1024,
            /// Most records of one user in a batch; bounds the outbox in his state.
            #[allowed(1..=10_000)]
            batch_max_records_per_user: usize = 5_000,
            /// Bytes of user states kept in memory; 0 keeps none beyond the batches in flight.
            #[allowed(0..=1_099_511_627_776)]
            cache_max_bytes: usize = 256 * 1024 * 1024,
            /// How far an event may lie ahead of our clock before it is a dead letter, milliseconds.
            #[allowed(0..=86_400_000)]
            max_future_skew_ms: u64 = 300_000,
            /// Largest record taken from `events`, key and value; a larger one is a dead letter.
            #[allowed(1_024..=16_777_216)]
            max_record_bytes: usize = 1024 * 1024,
            /// How the producers of events choose a key's partition; a record elsewhere is a dead letter.
            events_partitioner: EventsPartitioner = EventsPartitioner::Murmur2,
        }
        sections {}
    }
}

section! {
    /// When work waits for an ill store or registry, and how it is found well again.
    pub struct Breaker {
        keys {
            /// How far back the results of calls count, milliseconds.
            #[allowed(1_000..=600_000)]
            window_ms: u64 = 10_000,
            /// Calls that fail of a hundred in the window before work waits.
            #[allowed(1..=100)]
            failure_share_percent: u64 = 50,
            /// Calls that fail in a row before work waits; fewer results in the window than this are no share.
            #[allowed(1..=10_000)]
            run_length: u64 = 5,
            /// From the moment work waits to the first probe, milliseconds; each further wait is twice as long.
            #[allowed(10..=60_000)]
            probe_min_ms: u64 = 200,
            /// Longest time between two probes, milliseconds.
            #[allowed(10..=600_000)]
            probe_max_ms: u64 = 2_000,
        }
        sections {}
    }
}

section! {
    /// Records that wait to be tried again.
    pub struct Retry {
        keys {
            /// How long a record waits after its first, second, … failure, milliseconds, ascending; as many retry topics.
            #[allowed(1..=86_400_000)]
            delays_ms: Vec<u64> = vec![1_000, 10_000, 60_000, 600_000],
            /// How often a record may fail for a reason of its own before it is a dead letter.
            #[allowed(1..=1_000_000)]
            max_attempts: u64 = 5,
            /// Records that may wait in a partition; above that the partition of events rests.
            #[allowed(1..=100_000_000)]
            max_pending: usize = 100_000,
            /// Records of one user that may wait; above that the partition of events rests, and an operator has to act.
            #[allowed(1..=100_000_000)]
            max_pending_per_user: usize = 10_000,
        }
        sections {}
    }
}

section! {
    /// The HTTP port.
    pub struct Http {
        keys {
            /// Address for /metrics, /livez and /readyz; port 0 takes any free one and logs it.
            bind: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
        }
        sections {}
    }
}

choice! {
    /// Form of the log.
    pub enum LogFormat {
        /// Lines for people.
        Human = "human",
        /// One JSON object a line.
        Json = "json",
    }
}

section! {
    /// The log.
    pub struct Log {
        keys {
            /// Lines for people, or one JSON object a line.
            format: LogFormat = LogFormat::Human,
            /// Level of our own lines (others from warn on), or levels by module such as info,rdkafka=debug.
            level: String = "info".into(),
        }
        sections {}
    }
}

section! {
    /// The end of the process.
    pub struct Shutdown {
        keys {
            /// Longest time from SIGTERM to the end, milliseconds.
            #[allowed(1_000..=600_000)]
            grace_ms: u64 = 30_000,
        }
        sections {}
    }
}
