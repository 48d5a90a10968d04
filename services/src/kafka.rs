//! Kafka: one broker that is its own controller.

use crate::fetch::Artifacts;
use crate::http::connect;
use crate::stack::{Recipe, Site};
use anyhow::{Context, bail};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// How Kafka is started.
pub const RECIPE: Recipe = Recipe {
    name: "kafka",
    cache_name: "kafka-4.3.1",
    artifacts: Artifacts::Jars(&["org.apache.kafka:kafka_2.13:4.3.1"]),
    command,
    answers,
};

/// Formats the data folder and returns the broker's command.
fn command(site: &Site, port: u16, inner_port: u16) -> anyhow::Result<Command> {
    let properties = site.write("server.properties", &properties(site, port, inner_port))?;
    let logging = site.write("log4j2.xml", LOGGING)?;
    let classpath = format!("{}/*", site.parts.display());

    let mut format = site.java();
    format.args([
        "-Xmx128m",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        &classpath,
        "kafka.tools.StorageTool",
        "format",
        "-t",
    ]);
    format.arg(cluster_id()).arg("-c").arg(&properties);
    let formatted = format.output().context("cannot run Kafka's storage tool")?;
    if !formatted.status.success() {
        bail!("Kafka's storage tool failed: {}", String::from_utf8_lossy(&formatted.stderr));
    }

    let mut broker = site.java();
    broker.args(["-Xms256m", "-Xmx1g", "-XX:+UseG1GC"]);
    broker.arg(format!("-Dlog4j2.configurationFile={}", logging.display()));
    broker.arg(format!("-Dkafka.logs.dir={}", site.folder.display()));
    broker.args(["-cp", &classpath, "kafka.Kafka"]).arg(&properties);
    Ok(broker)
}

fn properties(site: &Site, port: u16, inner_port: u16) -> String {
    let data = site.folder.join("data");
    let data = data.display();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{inner_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{inner_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
# From here on: quick starts, and time-outs short enough for tests that kill members.
offsets.topic.num.partitions=5
transaction.state.log.num.partitions=5
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.cleaner.dedupe.buffer.size=33554432
"
    )
}

/// A new cluster id: 22 letters of base64url, which are 16 bytes when the last letter's low bits are zero.
fn cluster_id() -> String {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let digits = format!("{:08x}{:013x}", std::process::id(), clock & 0x000f_ffff_ffff_ffff);
    format!("{digits}A")
}

/// Kafka logs errors only when nothing is said.
const LOGGING: &str = r#"<Configuration status="warn">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %c{1}: %m%n"/></Console></Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"#;

/// ApiVersions, version 0, correlation id 7, no client id. A broker answers it once it takes requests.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

fn answers(port: u16) -> Result<()> {
    let mut stream = connect(port)?;
    stream.write_all(&API_VERSIONS)?;
    let mut head = [0; 10];
    stream.read_exact(&mut head)?;
    let [_, _, _, _, correlation @ .., error_high, error_low] = head;
    if correlation == [0, 0, 0, 7] && [error_high, error_low] == [0, 0] {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::InvalidData, "not the answer of a broker"))
    }
}

#[cfg(test)]
mod tests {
    use super::{API_VERSIONS, cluster_id};

    #[test]
    fn a_cluster_id_has_the_form_kafka_demands() {
        let id = cluster_id();
        assert_eq!(id.len(), 22, "{id}");
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric()) && id.ends_with('A'), "{id}");
    }

    #[test]
    fn the_request_states_its_own_length() {
        assert_eq!(usize::from(API_VERSIONS[3]), API_VERSIONS.len() - 4);
    }
}
