//! Finds a Java 17: Kafka 4 needs 17 or later, Cassandra 5 refuses anything but 11 and 17.

use anyhow::bail;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version all three services run on.
const WANTED: u32 = 17;

/// Where packages put Java installations.
const INSTALLATIONS: [&str; 2] = ["/usr/lib/jvm", "/Library/Java/JavaVirtualMachines"];

/// The first `java` of version 17 among JAVA_HOME, PATH and the usual folders.
pub fn find() -> anyhow::Result<PathBuf> {
    let mut seen = Vec::new();
    for java in candidates() {
        match version(&java) {
            // The real place, because Maven wants the home around it.
            Some(WANTED) => return Ok(java.canonicalize().unwrap_or(java)),
            Some(other) => seen.push(format!("{} is version {other}", java.display())),
            None => {}
        }
    }
    let seen = if seen.is_empty() { "none was found".to_owned() } else { seen.join(", ") };
    bail!(
        "a Java {WANTED} is needed ({seen}): install one (Debian: openjdk-17-jdk-headless) or point JAVA_HOME to it"
    )
}

/// Every `java` worth asking, best first.
fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java")).into_iter().collect();
    found.extend(on_path("java"));
    for folder in INSTALLATIONS {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut homes: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        homes.sort();
        found.extend(
            homes.into_iter().flat_map(|home| [home.join("bin/java"), home.join("Contents/Home/bin/java")]),
        );
    }
    found.retain(|java| java.is_file());
    found
}

/// The first program of this name on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The major version that a `java` reports.
fn version(java: &Path) -> Option<u32> {
    let output = Command::new(java).arg("-version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stderr))
}

/// Reads `openjdk version "17.0.15" 2025-04-15`; Java 8 calls itself 1.8.
fn parse_version(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("version \"")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    match numbers.next() {
        Some(1) => numbers.next(),
        first => first,
    }
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_are_read_as_the_vendors_write_them() {
        for (text, expected) in [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment", Some(17)),
            ("Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"17\" 2021-09-14", Some(17)),
            ("java version \"1.8.0_401\"", Some(8)),
            ("openjdk version \"25-ea\"", Some(25)),
            ("command not found", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text}");
        }
    }
}
