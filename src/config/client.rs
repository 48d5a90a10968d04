//! The settings of a Kafka client that have nothing to do with delivery: brokers, TLS, SASL and the properties
//! passed through. What the delivery rules need is set by the `kafka` module, on top.

use rdkafka::ClientConfig;
use secrecy::ExposeSecret;

use super::sections::Config;

/// Brokers, TLS, SASL and pass-through properties.
pub(super) fn client_config(config: &Config) -> ClientConfig {
    let kafka = &config.kafka;
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &kafka.brokers);
    client.set("client.id", "campaignd");
    client.set("security.protocol", kafka.security_protocol.as_str());
    for (property, path) in [
        ("ssl.ca.location", &kafka.ssl_ca_location),
        ("ssl.certificate.location", &kafka.ssl_certificate_location),
        ("ssl.key.location", &kafka.ssl_key_location),
    ] {
        if let Some(path) = path {
            client.set(property, path.to_string_lossy());
        }
    }
    if let Some(password) = &kafka.ssl_key_password {
        client.set("ssl.key.password", password.expose_secret());
    }
    if let Some(mechanism) = kafka.sasl_mechanism {
        client.set("sasl.mechanism", mechanism.as_str());
    }
    if let Some(user) = &kafka.sasl_username {
        client.set("sasl.username", user);
    }
    if let Some(password) = &kafka.sasl_password {
        client.set("sasl.password", password.expose_secret());
    }
    for (property, value) in &kafka.librdkafka {
        client.set(property, value);
    }
    client
}

const HAS_A_KEY: &str = "it has a key of its own in [kafka] or [group]";
const OFFSETS: &str =
    "offsets are committed inside the transaction that carries the batch's results, and nowhere else";
const TRANSACTION: &str =
    "the transactional producer fixes it, so that a batch is published once and in order";
const ASSIGNMENT: &str = "the owner protocol rests on eager range assignment in the classic group protocol";

/// Why a librdkafka property is not the user's to set; `None` if it is.
pub(super) fn reserved_reason(property: &str) -> Option<&'static str> {
    Some(match property {
        "bootstrap.servers"
        | "metadata.broker.list"
        | "client.id"
        | "security.protocol"
        | "ssl.ca.location"
        | "ssl.certificate.location"
        | "ssl.key.location"
        | "ssl.key.password"
        | "sasl.mechanism"
        | "sasl.mechanisms"
        | "sasl.username"
        | "sasl.password"
        | "group.id"
        | "group.instance.id"
        | "session.timeout.ms" => HAS_A_KEY,
        "enable.auto.commit"
        | "auto.commit.enable"
        | "auto.commit.interval.ms"
        | "enable.auto.offset.store"
        | "offset.store.method"
        | "offset.store.path"
        | "offset.store.sync.interval.ms" => OFFSETS,
        "isolation.level" => {
            "every reader says itself whether it may see records of open or aborted transactions"
        }
        "auto.offset.reset" => {
            "a partition without a committed offset is a decision of the owner protocol; a silent reset would skip or repeat events"
        }
        "transactional.id"
        | "transaction.timeout.ms"
        | "enable.idempotence"
        | "enable.gapless.guarantee"
        | "acks"
        | "request.required.acks"
        | "max.in.flight"
        | "max.in.flight.requests.per.connection"
        | "retries"
        | "message.send.max.retries"
        | "message.timeout.ms"
        | "delivery.timeout.ms"
        | "delivery.report.only.error"
        | "queuing.strategy" => TRANSACTION,
        "partition.assignment.strategy"
        | "group.protocol"
        | "group.protocol.type"
        | "group.remote.assignor" => ASSIGNMENT,
        "partitioner" => {
            "decisions go to the partition number of their event, and pipeline.events_partitioner names that of the events"
        }
        "enable.partition.eof" => "the readers that need the end of a partition find it by the watermark",
        "allow.auto.create.topics" => {
            "`campaignd topology apply` creates topics, with the settings they need"
        }
        "message.max.bytes" | "message.copy.max.bytes" => "it follows from pipeline.max_record_bytes",
        _ => return None,
    })
}
