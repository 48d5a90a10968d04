//! What needs a container engine, or another machine, agrees with the code: image, compose file, workflow, Makefile.
//!
//! These files are parsed and compared here, not run: that the image builds and gets ready is shown by the workflow.

use campaignd::cli::Cli;
use campaignd::config::Config;
use clap::CommandFactory;
use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    let text = text(path);
    let mut events =
        Parser::new_from_str(&text).map(|event| event.unwrap_or_else(|e| panic!("{path}: {e}")).0);
    let first = events.find(|event| !matches!(event, Event::StreamStart | Event::DocumentStart(_))).unwrap();
    node(first, &mut events)
}

/// Every scalar is a string here: only texts are compared.
fn node<'input>(event: Event<'input>, events: &mut impl Iterator<Item = Event<'input>>) -> Value {
    match event {
        Event::Scalar(text, ..) => Value::String(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match events.next().unwrap() {
                    Event::SequenceEnd => return Value::Array(items),
                    item => items.push(node(item, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut map = Map::new();
            loop {
                match events.next().unwrap() {
                    Event::MappingEnd => return Value::Object(map),
                    Event::Scalar(key, ..) => {
                        let value = node(events.next().unwrap(), events);
                        assert!(map.insert(key.to_string(), value).is_none(), "twice: {key}");
                    }
                    other => panic!("not a key: {other:?}"),
                }
            }
        }
        other => panic!("anchors and aliases are not used here: {other:?}"),
    }
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|items| items.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn image_config() -> Config {
    Config::load(Some(&root().join("docker/campaignd.toml")), []).unwrap()
}

/// The compose services that run our image.
fn ours(compose: &Value) -> Vec<(&String, &Value)> {
    let services = compose["services"].as_object().unwrap();
    services.iter().filter(|(_, service)| service["image"] == "campaignd").collect()
}

/// The instruction's arguments, continuation lines joined, one text for each time it is used.
fn instructions(dockerfile: &str, name: &str) -> Vec<String> {
    let joined = dockerfile.replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    lines.map(|rest| rest.trim().to_owned()).collect()
}

fn assert_is_a_command(arguments: &[&str], place: &str) {
    let words = std::iter::once("campaignd").chain(arguments.iter().copied());
    if let Err(error) = Cli::command().try_get_matches_from(words) {
        panic!("{place}: campaignd {} is refused: {error}", arguments.join(" "));
    }
}

#[test]
fn every_command_of_the_compose_file_and_the_image_exists() {
    let compose = yaml("docker/compose.yaml");
    let mut steps = Vec::new();
    for (name, service) in ours(&compose) {
        let command = strings(&service["command"]);
        assert_is_a_command(&command, name);
        steps.push(command[..command.len().min(2)].join(" "));
    }
    steps.sort();
    assert_eq!(steps, ["campaigns apply", "run", "schemas register", "store migrate", "topology apply"]);

    let dockerfile = text("docker/Dockerfile");
    assert_eq!(instructions(&dockerfile, "ENTRYPOINT"), [r#"["campaignd"]"#]);
    let command: Vec<String> = serde_json::from_str(&instructions(&dockerfile, "CMD")[0]).unwrap();
    assert_is_a_command(&command.iter().map(String::as_str).collect::<Vec<_>>(), "docker/Dockerfile");
}

#[test]
fn campaignd_starts_after_every_step_that_prepares_it() {
    let compose = yaml("docker/compose.yaml");
    let services = compose["services"].as_object().unwrap();
    let waits_for = |name: &str| services[name]["depends_on"].as_object().unwrap().clone();
    for (name, _) in services.iter().filter(|(_, service)| service["depends_on"].is_object()) {
        for (needed, how) in waits_for(name) {
            assert!(services.contains_key(&needed), "{name} depends on {needed}, which is not there");
            let is_server = services[&needed]["healthcheck"].is_object();
            let expected = if is_server { "service_healthy" } else { "service_completed_successfully" };
            assert_eq!(how["condition"], expected, "{name} depends on {needed}");
        }
    }
    let waited = waits_for("campaignd");
    for (step, _) in ours(&compose).iter().filter(|(name, _)| *name != "campaignd") {
        assert_eq!(waited[step.as_str()]["condition"], "service_completed_successfully", "{step}");
    }
}

#[test]
fn the_addresses_of_the_image_are_those_of_the_compose_file() {
    let config = image_config();
    let compose = yaml("docker/compose.yaml");
    let services = &compose["services"];
    let advertised = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    assert!(advertised.contains(&format!("INTERNAL://{},", config.kafka.brokers)), "{advertised}");

    let registry = &services["registry"]["environment"];
    let port = registry["SCHEMA_REGISTRY_LISTENERS"].as_str().unwrap().rsplit(':').next().unwrap();
    assert_eq!(config.registry.url, format!("http://registry:{port}"));
    assert_eq!(registry["SCHEMA_REGISTRY_SCHEMA_COMPATIBILITY_LEVEL"], "backward");

    assert_eq!(config.store.scylla.nodes, ["scylla:9042"]);
    assert_eq!(strings(&services["scylla"]["ports"]), ["127.0.0.1:9042:9042"]);

    let port = config.http.bind.port();
    assert!(!config.http.bind.ip().is_loopback(), "a published port does not reach a loopback address");
    assert_eq!(strings(&services["campaignd"]["ports"]), [format!("127.0.0.1:{port}:{port}")]);
    let dockerfile = text("docker/Dockerfile");
    assert_eq!(instructions(&dockerfile, "EXPOSE"), [port.to_string()]);
    let health = &instructions(&dockerfile, "HEALTHCHECK")[0];
    assert!(
        health.contains(&format!("/dev/tcp/127.0.0.1/{port} ")) && health.contains("GET /readyz "),
        "{health}"
    );
    assert!(text(".github/workflows/ci.yml").contains(&format!("http://127.0.0.1:{port}/readyz")));
}

#[test]
fn the_image_has_time_to_end_and_a_name_that_lasts() {
    let compose = yaml("docker/compose.yaml");
    let service = &compose["services"]["campaignd"];
    let grace = service["stop_grace_period"].as_str().unwrap().strip_suffix('s').unwrap();
    assert!(grace.parse::<u64>().unwrap() * 1_000 > image_config().shutdown.grace_ms);
    assert!(service["hostname"].is_string(), "without it, every container is a new member of the group");
}

#[test]
fn the_image_is_built_from_what_is_there_and_does_not_run_as_root() {
    let dockerfile = text("docker/Dockerfile");
    let users = instructions(&dockerfile, "USER");
    assert!(users.last().is_some_and(|user| user != "0" && user != "root"), "{users:?}");
    let environment = instructions(&dockerfile, "ENV");
    let config = environment[0].strip_prefix("CAMPAIGND_CONFIG=").unwrap();

    let allowed = text(".dockerignore");
    let mut installed = Vec::new();
    for copy in instructions(&dockerfile, "COPY") {
        let words: Vec<&str> = copy.split_whitespace().collect();
        let [source, target] = words.as_slice() else { continue };
        installed.push((*target).to_owned());
        if *source == "." {
            continue;
        }
        assert!(root().join(source).exists(), "{source} is not there");
        let let_in = allowed.lines().filter_map(|line| line.strip_prefix('!'));
        assert!(let_in.into_iter().any(|path| Path::new(source).starts_with(path)), "{source} is ignored");
    }
    assert!(installed.iter().any(|target| target == config), "{config} is not copied into the image");
    let campaigns = yaml("docker/compose.yaml")["services"]["campaigns"]["command"][2].clone();
    assert!(installed.iter().any(|target| *target == campaigns), "{campaigns} is not copied into the image");

    let manifest = text("Cargo.toml");
    let rust =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(instructions(&dockerfile, "FROM")[0].starts_with(&format!("rust:{rust}-")), "not Rust {rust}");
}

#[test]
fn the_compose_file_names_the_kafka_that_is_tested() {
    let compose = yaml("docker/compose.yaml");
    let image = compose["services"]["kafka"]["image"].as_str().unwrap();
    let version = image.strip_prefix("apache/kafka:").unwrap();
    assert!(
        text("services/src/kafka.rs").contains(&format!("org.apache.kafka:kafka_2.13:{version}")),
        "{version}"
    );
}

#[test]
fn the_configuration_that_services_up_writes_is_accepted() {
    let filled = text("services/src/campaignd.toml")
        .replace("{kafka}", "127.0.0.1:20001")
        .replace("{cassandra}", "127.0.0.1:20002")
        .replace("{registry}", "http://127.0.0.1:20003/apis/ccompat/v7");
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), filled).unwrap();
    let config = Config::load(Some(file.path()), []).unwrap();
    assert_eq!(config.kafka.brokers, "127.0.0.1:20001");
    assert_eq!(config.store.scylla.nodes, ["127.0.0.1:20002"]);
    assert_eq!(config.registry.url, "http://127.0.0.1:20003/apis/ccompat/v7");
}

#[test]
fn the_workflow_runs_what_a_developer_runs() {
    let workflow = yaml(".github/workflows/ci.yml");
    let jobs = workflow["jobs"].as_object().unwrap();
    let steps = jobs.values().flat_map(|job| job["steps"].as_array().unwrap());
    let runs: Vec<&str> = steps.filter_map(|step| step["run"].as_str()).collect();
    assert!(runs.contains(&"bash .ci/run"), "{runs:?}");
    assert!(runs.iter().any(|run| run.starts_with("cargo deny check")), "{runs:?}");

    let makefile = text("Makefile");
    let documented = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}: ## ")));
    for target in runs.iter().filter_map(|run| run.strip_prefix("make ")) {
        assert!(documented(target), "make {target}");
    }
    for target in ["build", "test", "lint", "fmt", "services", "up", "logs", "down", "demo", "clean"] {
        assert!(documented(target), "make {target}");
    }
    assert!(text("Makefile").contains("--file docker/compose.yaml"));
}

#[test]
fn the_demo_of_the_ci_script_is_a_command() {
    let script = text(".ci/run");
    let line = script.lines().find(|line| line.starts_with("cargo run --release -- demo")).unwrap();
    let (_, arguments) = line.split_once(" -- ").unwrap();
    let arguments = arguments.split('|').next().unwrap();
    assert_is_a_command(&arguments.split_whitespace().collect::<Vec<_>>(), ".ci/run");
}
