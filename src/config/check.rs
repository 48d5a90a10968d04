//! Checks of a value's form and of values against each other; ranges are checked where the key is read.

use std::collections::BTreeMap;
use std::path::Path;

use super::client::{client_config, reserved_reason};
use super::problem::Problem;
use super::sections::{Config, StoreKind};
use super::source::Origin;
use crate::pipeline::parking::tiers::MAX_TIERS;

/// Everything that is wrong with values that could be read.
pub(super) fn check(config: &Config, origins: &BTreeMap<String, Origin>) -> Vec<Problem> {
    let mut checker = Checker { origins, problems: Vec::new() };
    checker.kafka(config);
    checker.group(config);
    checker.topics(config);
    checker.registry(config);
    checker.store(config);
    checker.pipeline(config);
    checker.breaker(config);
    checker.retry(config);
    checker.log(config);
    checker.problems
}

struct Checker<'o> {
    origins: &'o BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn refuse(&mut self, key: &str, value: impl ToString, message: impl Into<String>) {
        let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
        self.problems.push(Problem::new(key, &value.to_string(), &origin, message));
    }

    fn kafka(&mut self, config: &Config) {
        let kafka = &config.kafka;
        for broker in kafka.brokers.split(',') {
            if !is_host_port(broker.trim()) {
                self.refuse(
                    "kafka.brokers",
                    &kafka.brokers,
                    format!("{broker:?} is not host:port; allowed: host:port, separated by commas"),
                );
            }
        }
        for (key, path) in [
            ("kafka.ssl_ca_location", &kafka.ssl_ca_location),
            ("kafka.ssl_certificate_location", &kafka.ssl_certificate_location),
            ("kafka.ssl_key_location", &kafka.ssl_key_location),
        ] {
            let Some(path) = path else { continue };
            if !kafka.security_protocol.is_tls() {
                self.refuse(
                    key,
                    path.display(),
                    "has no effect without TLS; set kafka.security_protocol to ssl or sasl_ssl",
                );
            }
            self.readable(key, path);
        }
        if kafka.ssl_certificate_location.is_some() != kafka.ssl_key_location.is_some() {
            self.refuse(
                "kafka.ssl_certificate_location",
                "",
                "needs kafka.ssl_key_location, and the other way round; give both or neither",
            );
        }
        let login =
            kafka.sasl_mechanism.is_some() || kafka.sasl_username.is_some() || kafka.sasl_password.is_some();
        let complete =
            kafka.sasl_mechanism.is_some() && kafka.sasl_username.is_some() && kafka.sasl_password.is_some();
        if kafka.security_protocol.is_sasl() && !complete {
            self.refuse("kafka.security_protocol", kafka.security_protocol, "needs kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password (or kafka.sasl_password_file)");
        }
        if login && !kafka.security_protocol.is_sasl() {
            self.refuse("kafka.security_protocol", kafka.security_protocol, "makes no SASL login, but a kafka.sasl_ setting is given; allowed then: sasl_ssl, sasl_plaintext");
        }
        let reserved: Vec<_> =
            kafka.librdkafka.iter().filter_map(|(k, v)| Some((k, v, reserved_reason(k)?))).collect();
        for (property, value, reason) in &reserved {
            self.refuse(
                &format!("kafka.librdkafka.{property}"),
                format!("{value:?}"),
                format!("is not yours to set: {reason}"),
            );
        }
        if reserved.is_empty()
            && let Err(error) = client_config(config).create_native_config()
        {
            self.refuse("kafka.librdkafka", "", format!("librdkafka refuses a property: {error}"));
        }
    }

    fn readable(&mut self, key: &str, path: &Path) {
        if let Err(error) = std::fs::File::open(path) {
            self.refuse(
                key,
                path.display(),
                format!("cannot be read ({error}); allowed: a readable PEM file"),
            );
        }
    }

    fn group(&mut self, config: &Config) {
        let group = &config.group;
        let drain = group.drain_timeout_ms;
        if drain >= group.session_timeout_ms {
            self.refuse("group.drain_timeout_ms", drain, format!(
                "must be less than group.session_timeout_ms ({}), or the group gives the partitions away while their last batch is still being committed",
                group.session_timeout_ms
            ));
        }
        if drain >= config.shutdown.grace_ms {
            self.refuse(
                "group.drain_timeout_ms",
                drain,
                format!(
                    "must be less than shutdown.grace_ms ({}), or the process ends before its last batch",
                    config.shutdown.grace_ms
                ),
            );
        }
        for (key, name) in [("group.id", Some(&group.id)), ("group.instance_id", group.instance_id.as_ref())]
        {
            if let Some(name) = name
                && !is_kafka_name(name)
            {
                self.refuse(
                    key,
                    format!("{name:?}"),
                    "allowed: 1 to 249 of the letters a-z A-Z, digits, dot, hyphen and underscore",
                );
            }
        }
    }

    fn topics(&mut self, config: &Config) {
        let named = config.topics.by_role();
        for (index, (role, name)) in named.iter().enumerate() {
            let key = format!("topics.{role}");
            if !is_kafka_name(name) || *name == "." || *name == ".." {
                self.refuse(
                    &key,
                    format!("{name:?}"),
                    "allowed: 1 to 249 of the letters a-z A-Z, digits, dot, hyphen and underscore",
                );
            }
            if let Some((other, _)) = named.iter().take(index).find(|(_, other)| other == name) {
                self.refuse(
                    &key,
                    format!("{name:?}"),
                    format!("is also the name of topics.{other}; every topic needs its own"),
                );
            }
        }
        let prefix = &config.topics.retry;
        if !is_kafka_name(&config.topics.retry_topic(u8::MAX)) {
            self.refuse(
                "topics.retry",
                format!("{prefix:?}"),
                "allowed: 1 to 245 of the letters a-z A-Z, digits, dot, hyphen and underscore",
            );
        }
        // Whether a tier exists today or not: another topic of its name would be read as one.
        let retry_topics: Vec<String> = (1..=MAX_TIERS).map(|tier| format!("{prefix}.{tier}")).collect();
        for (role, name) in named {
            if retry_topics.iter().any(|retry| retry == name) {
                self.refuse(
                    "topics.retry",
                    format!("{prefix:?}"),
                    format!("makes a retry topic of the name of topics.{role}; every topic needs its own"),
                );
            }
        }
    }

    fn registry(&mut self, config: &Config) {
        let registry = &config.registry;
        let url_ok = reqwest::Url::parse(&registry.url).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.password().is_none()
        });
        if !url_ok {
            // The value may hold a password, so it is not repeated.
            self.refuse("registry.url", "(not shown)", "is not a URL of the registry; allowed: http:// or https://, a host, without user and password (they have keys of their own)");
        }
        if registry.user.is_some() != registry.password.is_some() {
            self.refuse("registry.user", "", "needs registry.password (or registry.password_file), and the other way round; give both or neither");
        }
    }

    fn store(&mut self, config: &Config) {
        if config.store.kind != StoreKind::Scylla {
            return;
        }
        let scylla = &config.store.scylla;
        for node in &scylla.nodes {
            if !is_host_port(node) {
                self.refuse(
                    "store.scylla.nodes",
                    format!("{node:?}"),
                    "is not host:port; allowed: a list such as [\"127.0.0.1:9042\"]",
                );
            }
        }
        let mut letters = scylla.keyspace.chars();
        let keyspace_ok = scylla.keyspace.len() <= 48
            && letters.next().is_some_and(|c| c.is_ascii_lowercase())
            && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !keyspace_ok {
            self.refuse(
                "store.scylla.keyspace",
                format!("{:?}", scylla.keyspace),
                "allowed: up to 48 of the letters a-z, digits and underscore, a letter first",
            );
        }
        if scylla.user.is_some() != scylla.password.is_some() {
            self.refuse("store.scylla.user", "", "needs store.scylla.password (or store.scylla.password_file), and the other way round; give both or neither");
        }
    }

    fn pipeline(&mut self, config: &Config) {
        let pipeline = &config.pipeline;
        if pipeline.max_record_bytes > pipeline.batch_max_bytes {
            self.refuse(
                "pipeline.max_record_bytes",
                pipeline.max_record_bytes,
                format!(
                    "must not exceed pipeline.batch_max_bytes ({}), or such a record fits no batch",
                    pipeline.batch_max_bytes
                ),
            );
        }
        if pipeline.batch_max_records_per_user > pipeline.batch_max_records {
            self.refuse(
                "pipeline.batch_max_records_per_user",
                pipeline.batch_max_records_per_user,
                format!("must not exceed pipeline.batch_max_records ({})", pipeline.batch_max_records),
            );
        }
    }

    fn breaker(&mut self, config: &Config) {
        let breaker = &config.breaker;
        if breaker.probe_max_ms < breaker.probe_min_ms {
            self.refuse(
                "breaker.probe_max_ms",
                breaker.probe_max_ms,
                format!("must not be less than breaker.probe_min_ms ({})", breaker.probe_min_ms),
            );
        }
    }

    fn retry(&mut self, config: &Config) {
        let retry = &config.retry;
        let delays = &retry.delays_ms;
        let ascends = delays.iter().zip(delays.iter().skip(1)).all(|(shorter, longer)| shorter < longer);
        if !ascends || !(1..=MAX_TIERS).contains(&delays.len()) {
            self.refuse(
                "retry.delays_ms",
                format!("{delays:?}"),
                format!("allowed: 1 to {MAX_TIERS} delays, each longer than the one before"),
            );
        }
        if retry.max_pending_per_user > retry.max_pending {
            self.refuse(
                "retry.max_pending_per_user",
                retry.max_pending_per_user,
                format!("must not exceed retry.max_pending ({})", retry.max_pending),
            );
        }
    }

    fn log(&mut self, config: &Config) {
        if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&config.log.level) {
            self.refuse("log.level", format!("{:?}", config.log.level), format!(
                "{error}; allowed: error, warn, info, debug, trace, off, or levels by module such as info,campaignd=debug"
            ));
        }
    }
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_ok = !host.is_empty() && !host.contains(char::is_whitespace) && !host.contains('/');
    host_ok && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_kafka_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}
