//! Apicurio Registry, which speaks the Confluent API and keeps its schemas in memory.

use crate::fetch::Artifacts;
use crate::http::request;
use crate::stack::{Recipe, Site};
use std::io::{Error, Result};
use std::process::Command;

/// How the registry is started.
pub const RECIPE: Recipe = Recipe {
    name: "apicurio",
    cache_name: "apicurio-2.6.13.Final",
    artifacts: Artifacts::Archive("io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"),
    command,
    answers,
};

/// Where the Confluent API lies.
pub const CONFLUENT_API: &str = "/apis/ccompat/v7";

fn command(site: &Site, port: u16, _inner_port: u16) -> anyhow::Result<Command> {
    let mut java = site.java();
    java.args(["-Xmx512m", "-Dquarkus.http.host=127.0.0.1"]);
    java.arg(format!("-Dquarkus.http.port={port}"));
    java.arg("-jar").arg(site.parts.join("apicurio-registry-app-2.6.13.Final-runner.jar"));
    Ok(java)
}

/// Ready once it lists its subjects, and once the compatibility check, off by default, is on.
fn answers(port: u16) -> Result<()> {
    expect_ok(request(port, "GET", &format!("{CONFLUENT_API}/subjects"), None)?)?;
    let backward = r#"{"compatibility":"BACKWARD"}"#;
    expect_ok(request(port, "PUT", &format!("{CONFLUENT_API}/config"), Some(backward))?)
}

fn expect_ok(status: u16) -> Result<()> {
    if status == 200 { Ok(()) } else { Err(Error::other(format!("it answers {status}"))) }
}
