//! What the documents name exists: commands, settings, targets, metrics, codes, files and tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use campaignd::cli::Cli;
use campaignd::config::{Config, headings};
use clap::CommandFactory;
use clap::error::ErrorKind;

const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust sources below a folder, one behind the other.
fn sources(folder: &Path) -> String {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &PathBuf| match path.extension() {
        Some(extension) if extension == "rs" => fs::read_to_string(path).unwrap(),
        _ if path.is_dir() => sources(path),
        _ => String::new(),
    };
    paths.iter().map(read).collect()
}

/// What stands between backticks, with its document; fenced blocks are left out.
fn quoted() -> BTreeSet<(&'static str, String)> {
    let of = |document: &'static str| {
        let text = text(document);
        let prose: String = text.split("```").step_by(2).collect();
        let words: Vec<String> = prose.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        words.into_iter().map(move |word| (document, word))
    };
    DOCUMENTS.into_iter().flat_map(of).collect()
}

/// The lines of indented blocks, with their document.
fn block_lines() -> Vec<(&'static str, String)> {
    let of = |document: &'static str| {
        let text = text(document);
        let lines = text.lines().filter(|line| line.starts_with("    "));
        lines.map(|line| (document, line.trim().to_owned())).collect::<Vec<_>>()
    };
    DOCUMENTS.into_iter().flat_map(of).collect()
}

/// The arguments of campaignd in a line that runs it.
fn arguments(line: &str) -> Option<&str> {
    let line = line.split(" | ").next()?;
    let starts = ["campaignd ", "cargo run --release -- "];
    let (_, in_container) = line.split_once(" exec campaignd ").unwrap_or(("", line));
    starts.iter().find_map(|start| in_container.strip_prefix(start))
}

#[test]
fn commands_are_commands() {
    let quoted = quoted();
    let prose = quoted.iter().filter(|(document, _)| *document != "CHANGELOG.md");
    let mut checked = 0;
    for (document, line) in block_lines().iter().chain(prose) {
        let Some(arguments) = arguments(line) else { continue };
        let words = std::iter::once("campaignd").chain(arguments.split_whitespace());
        if let Err(error) = Cli::command().try_get_matches_from(words) {
            // Prose names a command without its arguments.
            let is_named = error.kind() == ErrorKind::MissingRequiredArgument
                && quoted.contains(&(*document, line.clone()));
            assert!(is_named, "{document}: {line}: {error}");
        }
        checked += 1;
    }
    assert!(checked > 30, "{checked} commands found; the documents are not read as they should be");
}

#[test]
fn targets_are_in_the_makefile() {
    let makefile = text("Makefile");
    let quoted = quoted();
    for (document, line) in block_lines().iter().chain(&quoted) {
        for target in line
            .strip_prefix("make ")
            .iter()
            .flat_map(|targets| targets.split_whitespace())
            .take_while(|t| *t != "#")
        {
            let rule = format!("\n{target}: ## ");
            assert!(makefile.contains(&rule), "{document}: make {target}");
        }
    }
}

#[test]
fn settings_are_settings() {
    let rows: Vec<String> = headings(&Config::default())
        .into_iter()
        .flat_map(|heading| heading.rows)
        .map(|row| row.path)
        .collect();
    let sections: BTreeSet<&str> = rows.iter().filter_map(|path| path.split('.').next()).collect();
    let mut checked = 0;
    for (document, word) in quoted() {
        let key = word.split(" = ").next().unwrap_or_default();
        let is_key = key.split_once('.').is_some_and(|(section, rest)| {
            sections.contains(section)
                && rest.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'.'))
        });
        if is_key {
            assert!(rows.iter().any(|path| path == key), "{document}: {key}");
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked} settings found");
}

#[test]
fn metrics_codes_and_files_exist() {
    let (metrics, failures) = (text("src/telemetry/metrics.rs"), text("src/pipeline/failure.rs"));
    let quoted = quoted();
    for (document, word) in &quoted {
        if let Some(metric) = word.strip_prefix("campaignd_") {
            let name = metric.split('{').next().unwrap_or_default();
            assert!(metrics.contains(&format!("\"{name}\"")), "{document}: {word}");
        }
        let folders = ["src/", "tests/", "samples/", "schemas/", "topology/", "docker/", "services/", ".ci/"];
        if folders.iter().any(|folder| word.starts_with(folder)) {
            assert!(root().join(word).exists(), "{document}: {word}");
        }
    }
    for code in failures.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(
            quoted.contains(&("README.md", code.to_owned())),
            "the dead letter code {code} is not in the README"
        );
    }
}

/// A guard that is named and not there guards nothing.
#[test]
fn tests_that_are_named_exist() {
    let code = sources(&root().join("src")) + &sources(&root().join("tests"));
    let mut checked = 0;
    for (document, word) in quoted() {
        let is_name =
            word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b':'));
        if document == "ARCHITECTURE.md" && is_name && word.matches('_').count() >= 3 {
            let is_there = if word.contains("::") {
                code.contains(&format!("\"{word}\""))
            } else {
                code.contains(&format!("fn {word}(")) || code.contains(&format!("{word}:"))
            };
            assert!(is_there, "{document}: {word}");
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked} names found");
}
