//! The invariants of the house that no lint knows: who may know what. They read the sources.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file below a path, with its lines of code: without comments, and without the test module at its end.
fn sources(path: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    collect(&root().join(path), &mut files);
    assert!(!files.is_empty(), "{path} is not there");
    files.sort();
    files
}

fn collect(path: &Path, files: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), files));
    } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(path) {
        let text = fs::read_to_string(path).unwrap();
        let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = production.lines().filter(|line| !line.trim_start().starts_with("//"));
        files.push((path.to_owned(), code.collect::<Vec<_>>().join("\n")));
    }
}

/// Files that are compiled for tests only.
fn is_test(path: &Path) -> bool {
    let is = |name: &str| {
        name == "tests"
            || ["tests.rs", "testing.rs", "fixtures.rs", "stories.rs"].contains(&name)
            || name.ends_with("_tests.rs")
    };
    // The checkout itself may lie in a folder of such a name.
    path.strip_prefix(root()).unwrap_or(path).iter().any(|part| part.to_str().is_some_and(is))
}

fn assert_without(paths: &[&str], forbidden: &[&str], allowed: &[(&str, &str)]) {
    for (file, code) in paths.iter().flat_map(|path| sources(path)) {
        for word in forbidden.iter().filter(|word| code.contains(**word)) {
            let excused = allowed.iter().any(|(path, excuse)| file.ends_with(path) && excuse == word);
            assert!(excused, "{} must not know {word}", file.display());
        }
    }
}

/// Clients, runtimes, clocks, files, and maps whose order differs from run to run.
const IMPURE: [&str; 20] = [
    "tokio",
    "rdkafka",
    "scylla::",
    "fjall",
    "axum",
    "reqwest",
    "figment",
    "tracing",
    "std::time",
    "std::thread",
    "std::fs",
    "std::net",
    "std::env",
    "SystemTime",
    "Instant",
    "::now()",
    "HashMap",
    "HashSet",
    "RandomState",
    "rand::rng()",
];

#[test]
fn pure_modules_know_no_runtime_no_kafka_no_store_and_no_clock() {
    let pure = [
        "src/campaign",
        "src/user",
        "src/decision",
        "src/event",
        "src/generate",
        "src/position.rs",
        "src/partitioner.rs",
    ];
    assert_without(&pure, &IMPURE, &[]);
    let ours = [
        "kafka",
        "store",
        "pipeline",
        "processor",
        "projection",
        "config",
        "cli",
        "telemetry",
        "topology",
        "api",
    ];
    let ours = ours.map(|module| format!("crate::{module}"));
    assert_without(&pure, &ours.each_ref().map(String::as_str), &[]);
    assert_without(&pure, &["crate::{"], &[]);
}

#[test]
fn the_rules_of_dead_letters_know_no_kafka_and_no_clock() {
    assert_without(&["src/dead_letters"], &IMPURE, &[]);
    assert_without(&["src/dead_letters"], &["crate::kafka", "crate::config", "crate::cli"], &[]);
}

#[test]
fn the_pipeline_knows_traits_only() {
    let forbidden = [
        "rdkafka",
        "scylla::",
        "fjall",
        "reqwest",
        "crate::kafka",
        "crate::config",
        "crate::processor",
        "crate::projection",
        "store::scylla::",
        "store::embedded",
        "schema::registry",
        "schema::embedded",
        "std::time::Instant",
        "SystemTime::",
        "::now()",
        "std::fs",
        "HashMap",
        "HashSet",
        "crate::{",
    ];
    // The trait's own implementation, and tokio's clock, which a test can pause.
    let allowed =
        ["clock.rs", "processor.rs", "committed.rs", "housekeeping.rs", "watermarks.rs", "breaker/handle.rs"]
            .map(|file| (file, "::now()"));
    assert_without(&["src/pipeline"], &forbidden, &allowed);
}

#[test]
fn unsafe_is_in_one_module() {
    let allowed: Vec<PathBuf> = sources("src")
        .into_iter()
        .filter(|(_, code)| code.contains("allow(unsafe_code"))
        .map(|(file, _)| file)
        .collect();
    assert_eq!(allowed, [root().join("src/kafka/raw.rs")]);
}

#[test]
fn the_model_imports_nothing_from_campaignd() {
    let model = fs::read_to_string(root().join("tests/support/model.rs")).unwrap();
    assert!(!model.contains("campaignd::"), "the model would judge the code by itself");
}
