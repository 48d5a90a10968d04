use std::collections::BTreeMap;
use std::io::Write;

use secrecy::ExposeSecret;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = file(text);
    Config::load(Some(file.path()), env.iter().map(|(k, v)| (k.to_string(), v.to_string())))
}

fn problems(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    load(text, env).expect_err("is refused").problems.iter().map(Problem::to_string).collect()
}

#[track_caller]
fn assert_problem(problems: &[String], parts: &[&str]) {
    let found = problems.iter().any(|problem| parts.iter().all(|part| problem.contains(part)));
    assert!(found, "no problem with {parts:?} in {problems:#?}");
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let toml = "[group]\nid = \"from-file\"\nsession_timeout_ms = 30_000\n";
    let config = load(toml, &[("CAMPAIGND_GROUP__ID", "from-env")]).unwrap();
    assert_eq!(config.group.id, "from-env");
    assert_eq!(config.group.session_timeout_ms, 30_000);
    assert_eq!(config.group.transaction_timeout_ms, 15_000);
}

#[test]
fn everything_wrong_is_reported_at_once_with_key_value_origin_and_what_is_allowed() {
    let toml = "[kafka]\nbroker = \"x:1\"\nsecurity_protocol = \"tls\"\n[pipeline]\nlanes = \"many\"\n[store]\nkind = 7\n[nonsense]\na = 1\n";
    let all = problems(toml, &[("CAMPAIGND_GROUP__SESSION_TIMEOUT_MS", "5")]);
    assert_problem(&all, &["kafka.broker ", "did you mean kafka.brokers?"]);
    assert_problem(&all, &["kafka.security_protocol = \"tls\"", "plaintext, ssl, sasl_plaintext, sasl_ssl"]);
    assert_problem(&all, &["pipeline.lanes = \"many\"", "a whole number from 0 to 256"]);
    assert_problem(&all, &["store.kind = 7", "scylla, embedded"]);
    assert_problem(&all, &["nonsense.a", "the sections are kafka, group"]);
    assert_problem(
        &all,
        &["group.session_timeout_ms = \"5\"", "CAMPAIGND_GROUP__SESSION_TIMEOUT_MS", "6000 to 1800000"],
    );
    assert_eq!(all.len(), 6, "{all:#?}");
}

#[test]
fn a_section_in_place_of_a_value_and_a_value_in_place_of_a_section_are_refused() {
    assert_problem(&problems("kafka = 3\n", &[]), &["kafka", "is a section"]);
    assert_problem(&problems("[kafka.brokers]\na = 1\n", &[]), &["kafka.brokers = a table", "not a text"]);
}

#[test]
fn a_missing_or_broken_file_is_refused() {
    let missing = Config::load(Some(std::path::Path::new("/no/such/file.toml")), []).unwrap_err();
    assert!(
        missing.to_string().contains("/no/such/file.toml") && missing.to_string().contains("cannot be read")
    );
    assert_problem(&problems("[kafka\n", &[]), &["is not TOML"]);
    assert_problem(
        &problems("[kafka]\nbrokers = \"a:1\"\nbrokers = \"b:1\"\n", &[]),
        &["is not TOML", "duplicate"],
    );
}

#[test]
fn text_of_digits_in_the_environment_stays_text() {
    let config = load(
        "",
        &[
            ("CAMPAIGND_STORE__SCYLLA__USER", "007"),
            ("CAMPAIGND_STORE__SCYLLA__PASSWORD", "12345"),
            ("CAMPAIGND_STORE__SCYLLA__NODES", "a:9042, b:9042"),
            ("CAMPAIGND_GROUP__STATIC_MEMBERSHIP", "false"),
            ("CAMPAIGND_PIPELINE__LANES", "4"),
        ],
    )
    .unwrap();
    assert_eq!(config.store.scylla.user.as_deref(), Some("007"));
    assert_eq!(config.store.scylla.password.unwrap().expose_secret(), "12345");
    assert_eq!(config.store.scylla.nodes, ["a:9042", "b:9042"]);
    assert!(!config.group.static_membership);
    assert_eq!(config.pipeline.lanes, 4);
}

#[test]
fn a_number_in_quotes_in_the_file_is_refused() {
    assert_problem(
        &problems("[pipeline]\nlanes = \"4\"\n", &[]),
        &["pipeline.lanes = \"4\"", "not a whole number"],
    );
    assert_problem(&problems("[pipeline]\nlanes = -1\n", &[]), &["pipeline.lanes = -1", "out of range"]);
    assert_problem(
        &problems("[pipeline]\nlanes = 1.5\n", &[]),
        &["pipeline.lanes = 1.5", "not a whole number"],
    );
}

#[test]
fn a_secret_comes_from_a_file_without_its_line_end_and_is_never_shown() {
    let secret = file("s3cret \n");
    let path = secret.path().display().to_string();
    let toml = format!(
        "[kafka]\nsecurity_protocol = \"sasl_ssl\"\nsasl_mechanism = \"PLAIN\"\nsasl_username = \"u\"\nsasl_password_file = {path:?}\n"
    );
    let configuration = file(&toml);
    let loaded = Config::load_explained(Some(configuration.path()), []).unwrap();
    assert_eq!(loaded.config.kafka.sasl_password.as_ref().unwrap().expose_secret(), "s3cret ");
    for shown in [
        format!("{:?}", loaded.config),
        effective_toml(&loaded.config, &loaded.origins),
        effective_json(&loaded.config, &loaded.origins).to_string(),
    ] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    assert_eq!(loaded.config.client_config().get("sasl.password"), Some("s3cret "));
}

#[test]
fn a_secret_is_not_repeated_in_an_error() {
    let secret = file("fromfile");
    let path = secret.path().display().to_string();
    let toml = format!("[registry]\nuser = \"u\"\npassword = \"hunter2\"\npassword_file = {path:?}\n");
    let all = problems(&toml, &[]);
    assert_problem(&all, &["registry.password", "keep one of them"]);
    let error = problems("[registry]\nuser = \"u\"\npassword = 4711\n", &[]);
    assert_problem(&error, &["registry.password = (secret)"]);
    assert!(!format!("{all:?}{error:?}").contains("hunter2") && !format!("{error:?}").contains("4711"));
    let url = problems("[registry]\nurl = \"https://u:hunter2@host/\"\n", &[]);
    assert!(!format!("{url:?}").contains("hunter2"));
    let missing = problems("[registry]\nuser = \"u\"\npassword_file = \"/no/such/secret\"\n", &[]);
    assert_problem(&missing, &["registry.password_file = \"/no/such/secret\"", "cannot be read"]);
}

#[test]
fn librdkafka_properties_pass_in_every_spelling() {
    let toml = "[kafka.librdkafka]\n\"fetch.wait.max.ms\" = 50\nsocket.keepalive.enable = true\n\"linger.ms\" = \"1\"\n";
    let config = load(toml, &[("CAMPAIGND_KAFKA__LIBRDKAFKA__CLIENT_RACK", "eu-1a")]).unwrap();
    let client = config.client_config();
    assert_eq!(client.get("fetch.wait.max.ms"), Some("50"));
    assert_eq!(client.get("socket.keepalive.enable"), Some("true"));
    assert_eq!(client.get("linger.ms"), Some("1"));
    assert_eq!(client.get("client.rack"), Some("eu-1a"));
    assert_eq!(client.get("bootstrap.servers"), Some("127.0.0.1:9092"));
}

#[test]
fn properties_that_the_delivery_rules_rest_on_are_refused_with_the_reason() {
    for property in [
        "enable.auto.commit",
        "isolation.level",
        "transactional.id",
        "auto.offset.reset",
        "partition.assignment.strategy",
        "group.instance.id",
        "enable.idempotence",
        "acks",
        "max.in.flight",
        "group.protocol",
        "bootstrap.servers",
        "partitioner",
    ] {
        let all = problems(&format!("[kafka.librdkafka]\n{property:?} = \"x\"\n"), &[]);
        assert_problem(&all, &[&format!("kafka.librdkafka.{property} = \"x\""), "is not yours to set: "]);
        assert_eq!(all.len(), 1, "{all:?}");
    }
    let variable = ("CAMPAIGND_KAFKA__LIBRDKAFKA__ISOLATION_LEVEL", "read_uncommitted");
    assert_problem(&problems("", &[variable]), &["kafka.librdkafka.isolation.level"]);
}

#[test]
fn a_property_that_librdkafka_does_not_know_is_refused() {
    assert_problem(&problems("[kafka.librdkafka]\n\"no.such.thing\" = 1\n", &[]), &["no.such.thing"]);
    assert_problem(&problems("[kafka.librdkafka]\n\"linger.ms\" = \"soon\"\n", &[]), &["linger.ms"]);
}

#[test]
fn times_must_nest() {
    let all = problems("[group]\nsession_timeout_ms = 8_000\ndrain_timeout_ms = 9_000\n", &[]);
    assert_problem(&all, &["group.drain_timeout_ms = 9000", "less than group.session_timeout_ms (8000)"]);
    let all = problems("[shutdown]\ngrace_ms = 10_000\n", &[]);
    assert_problem(&all, &["group.drain_timeout_ms = 10000 (default)", "shutdown.grace_ms (10000)"]);
}

#[test]
fn sizes_must_nest() {
    let all = problems("[pipeline]\nmax_record_bytes = 9_000_000\nbatch_max_records = 10\n", &[]);
    assert_problem(&all, &["pipeline.max_record_bytes = 9000000", "batch_max_bytes"]);
    assert_problem(&all, &["pipeline.batch_max_records_per_user", "batch_max_records (10)"]);
}

#[test]
fn delays_are_a_list_that_ascends() {
    let config = load("[retry]\ndelays_ms = [10, 2_000]\n", &[]).unwrap();
    assert_eq!((config.retry.delays_ms.as_slice(), config.retry.tiers()), (&[10, 2_000][..], 2));
    let config = load("", &[("CAMPAIGND_RETRY__DELAYS_MS", "5, 1_000,60000")]).unwrap();
    assert_eq!(config.retry.delays_ms, [5, 1_000, 60_000]);
    let many = format!("[retry]\ndelays_ms = {:?}\n", (1..=17).collect::<Vec<u64>>());
    for toml in [
        "[retry]\ndelays_ms = []\n",
        "[retry]\ndelays_ms = [20, 10]\n",
        "[retry]\ndelays_ms = [1, 1]\n",
        &many,
    ] {
        assert_problem(&problems(toml, &[]), &["retry.delays_ms", "1 to 16 delays, each longer"]);
    }
    assert_problem(
        &problems("[retry]\ndelays_ms = [0, 10]\n", &[]),
        &["retry.delays_ms = [0, 10]", "holds something that is out of range", "from 1 to 86400000"],
    );
    assert_problem(&problems("[retry]\ndelays_ms = 10\n", &[]), &["retry.delays_ms = 10", "is not a list"]);
    assert_problem(
        &problems("", &[("CAMPAIGND_RETRY__DELAYS_MS", "1,soon")]),
        &["retry.delays_ms", "holds something that is not a whole number"],
    );
    assert_problem(
        &problems("[retry]\nmax_pending = 10\nmax_pending_per_user = 11\n", &[]),
        &["retry.max_pending_per_user = 11", "must not exceed retry.max_pending (10)"],
    );
}

#[test]
fn no_topic_has_the_name_of_a_retry_topic() {
    assert_problem(
        &problems("[topics]\ndlq = \"again.9\"\nretry = \"again\"\n", &[]),
        &["topics.retry = \"again\"", "the name of topics.dlq"],
    );
    assert_problem(&problems("[topics]\nretry = \"with space\"\n", &[]), &["topics.retry", "1 to 245"]);
    assert_eq!(load("", &[]).unwrap().topics.retry_topic(3), "events.retry.3");
}

#[test]
fn names_and_addresses_are_checked() {
    let toml = "[topics]\nevents = \"a b\"\ndecisions = \"same\"\nactivity = \"same\"\n[kafka]\nbrokers = \"a:9092,b\"\n\
                [registry]\nurl = \"localhost:8081\"\n[store.scylla]\nkeyspace = \"Big\"\nnodes = [\"a\"]\n\
                [http]\nbind = \"8080\"\n[log]\nlevel = \"info,campaignd=loud\"\n";
    let all = problems(toml, &[]);
    assert_problem(&all, &["topics.events = \"a b\""]);
    assert_problem(&all, &["topics.activity = \"same\"", "topics.decisions"]);
    assert_problem(&all, &["kafka.brokers", "\"b\" is not host:port"]);
    assert_problem(&all, &["registry.url", "http://"]);
    assert_problem(&all, &["store.scylla.keyspace = \"Big\""]);
    assert_problem(&all, &["store.scylla.nodes = \"a\""]);
    assert_problem(&all, &["http.bind = \"8080\"", "127.0.0.1:8080"]);
    assert_problem(&all, &["log.level"]);
}

#[test]
fn tls_and_sasl_settings_must_fit_the_protocol() {
    let all = problems("[kafka]\nsecurity_protocol = \"sasl_ssl\"\nsasl_username = \"u\"\n", &[]);
    assert_problem(&all, &["kafka.security_protocol = sasl_ssl", "kafka.sasl_mechanism"]);
    let all = problems("[kafka]\nsasl_username = \"u\"\n", &[]);
    assert_problem(&all, &["kafka.security_protocol = plaintext", "no SASL login"]);
    let all = problems("[kafka]\nssl_ca_location = \"/no/such/ca.pem\"\n", &[]);
    assert_problem(&all, &["kafka.ssl_ca_location", "no effect without TLS"]);
    assert_problem(&all, &["kafka.ssl_ca_location", "cannot be read"]);
}

#[test]
fn tls_and_sasl_reach_the_client() {
    let ca = file("PEM");
    let toml = format!(
        "[kafka]\nsecurity_protocol = \"sasl_ssl\"\nsasl_mechanism = \"SCRAM-SHA-512\"\nsasl_username = \"u\"\nsasl_password = \"p\"\nssl_ca_location = {:?}\n",
        ca.path().display().to_string()
    );
    let client = load(&toml, &[]).unwrap().client_config();
    assert_eq!(client.get("security.protocol"), Some("sasl_ssl"));
    assert_eq!(client.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
    assert_eq!(client.get("sasl.username"), Some("u"));
    assert_eq!(client.get("ssl.ca.location"), ca.path().to_str());
}

#[test]
fn variables_that_are_no_settings_are_left_alone_and_misspelt_ones_are_not() {
    let harmless = [
        ("CAMPAIGND_SERVICE_HOST", "10.0.0.1"),
        ("CAMPAIGND_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("CAMPAIGND_CONFIG", "campaignd.toml"),
        ("CAMPAIGND_TEST_PAUSE__AT", "x"),
        ("OTHER__KEY", "x"),
    ];
    load("", &harmless).unwrap();
    assert_problem(
        &problems("", &[("CAMPAIGND_KAFKA_BROKERS", "a:1")]),
        &["did you mean CAMPAIGND_KAFKA__BROKERS?"],
    );
    assert_problem(
        &problems("", &[("CAMPAIGND_KAFKA__BROKER", "a:1")]),
        &["kafka.broker", "CAMPAIGND_KAFKA__BROKER"],
    );
}

#[test]
fn an_empty_variable_means_not_set_where_a_value_is_optional() {
    let config = load("", &[("CAMPAIGND_REGISTRY__USER", ""), ("CAMPAIGND_REGISTRY__PASSWORD", "")]).unwrap();
    assert_eq!(config.registry.user, None);
    assert_problem(&problems("", &[("CAMPAIGND_GROUP__ID", "")]), &["group.id", "is empty"]);
}

#[test]
fn the_transactional_id_is_group_and_instance() {
    let config = load("[group]\nid = \"g\"\ninstance_id = \"i\"\n", &[]).unwrap();
    assert_eq!(config.transactional_id(), "g-i");
    assert!(!load("", &[]).unwrap().instance_id().is_empty());
}

/// The committed file, or the new one when `UPDATE_GENERATED=1`.
fn assert_generated(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{name} differs from the code; run the tests once with UPDATE_GENERATED=1");
}

#[test]
fn the_sample_files_are_those_of_the_code() {
    assert_generated("campaignd.example.toml", &example_toml());
    assert_generated(".env.example", &example_env());
}

#[test]
fn the_sample_file_loads_and_says_the_defaults() {
    let config = load(&example_toml(), &[]).unwrap();
    let none = BTreeMap::new();
    assert_eq!(effective_json(&config, &none), effective_json(&Config::default(), &none));
}

#[test]
fn the_sample_variables_load_and_say_the_defaults() {
    let text = example_env();
    let env: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.split_once('='))
        .filter(|(name, _)| {
            name.starts_with("CAMPAIGND_") && !name.contains("LIBRDKAFKA") && !name.ends_with("_FILE")
        })
        .collect();
    assert!(env.len() > 40, "{env:?}");
    let config = load("", &env).unwrap();
    let none = BTreeMap::new();
    assert_eq!(effective_json(&config, &none), effective_json(&Config::default(), &none));
}

#[test]
fn the_effective_configuration_is_a_configuration() {
    let toml = "[kafka.librdkafka]\n\"linger.ms\" = 3\n[group]\nid = \"g\"\n";
    let first = file(toml);
    let loaded = Config::load_explained(Some(first.path()), []).unwrap();
    let text = effective_toml(&loaded.config, &loaded.origins);
    assert!(text.contains(&format!("id = \"g\"  # {}", first.path().display())), "{text}");
    let again = load(&text, &[]).unwrap();
    let none = BTreeMap::new();
    assert_eq!(effective_json(&again, &none), effective_json(&loaded.config, &none));
}

#[test]
fn every_key_has_a_doc_line() {
    for heading in headings(&Config::default()) {
        assert!(!heading.doc.is_empty(), "{}", heading.path);
        for row in heading.rows {
            assert!(row.doc.ends_with('.') && row.doc.len() > 10, "{}: {:?}", row.path, row.doc);
        }
    }
}
