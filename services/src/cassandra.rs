//! Cassandra, which stands in for ScyllaDB where no ScyllaDB can run.

use crate::fetch::Artifacts;
use crate::http::connect;
use crate::stack::{Recipe, Site};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::process::Command;

/// How Cassandra is started.
pub const RECIPE: Recipe = Recipe {
    name: "cassandra",
    cache_name: "cassandra-5.0.9",
    artifacts: Artifacts::Jars(&[
        "org.apache.cassandra:cassandra-all:5.0.9",
        "com.github.jbellis:jamm:0.4.0",
    ]),
    command,
    answers,
};

/// Parts of the JDK whose public types Cassandra uses.
const EXPORTS: [&str; 10] = [
    "java.base/jdk.internal.misc",
    "java.base/java.lang.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
    "jdk.compiler/com.sun.tools.javac.file",
    "jdk.attach/sun.tools.attach",
];

/// Parts of the JDK that Cassandra, and jamm, open by reflection.
const OPENS: [&str; 14] = [
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.util",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/sun.nio.ch",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "jdk.management/com.sun.management.internal",
    "jdk.compiler/com.sun.tools.javac",
];

fn command(site: &Site, port: u16, inner_port: u16) -> anyhow::Result<Command> {
    let config = site.write("cassandra.yaml", &config(site, port, inner_port))?;
    let logging = site.write("logback.xml", LOGGING)?;
    let folder = site.folder.display();
    let parts = site.parts.display();

    let mut java = site.java();
    java.args(["-Xms512m", "-Xmx1G", "-XX:+UseG1GC", "-Djdk.attach.allowAttachSelf=true"]);
    java.arg(format!("-javaagent:{parts}/jamm-0.4.0.jar"));
    for package in EXPORTS {
        java.args(["--add-exports", &format!("{package}=ALL-UNNAMED")]);
    }
    for package in OPENS {
        java.args(["--add-opens", &format!("{package}=ALL-UNNAMED")]);
    }
    java.arg(format!("-Dcassandra.config=file://{}", config.display()));
    java.arg(format!("-Dcassandra.storagedir={folder}/data"));
    java.arg(format!("-Dcassandra.logdir={folder}"));
    java.arg(format!("-Dlogback.configurationFile={}", logging.display()));
    java.args([
        "-Dcassandra-foreground=yes",
        "-Dio.netty.tryReflectionSetAccessible=true",
        // There is no other node to wait for.
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
        "-Dcassandra.ring_delay_ms=1",
        "-Dcassandra.superuser_setup_delay_ms=0",
    ]);
    java.args(["-cp", &format!("{folder}:{parts}/*"), "org.apache.cassandra.service.CassandraDaemon"]);
    Ok(java)
}

fn config(site: &Site, port: u16, inner_port: u16) -> String {
    let data = site.folder.join("data");
    let data = data.display();
    format!(
        "cluster_name: test
num_tokens: 1
auto_bootstrap: false
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [ {{ seeds: \"127.0.0.1:{inner_port}\" }} ]
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
storage_port: {inner_port}
native_transport_port: {port}
commitlog_sync: periodic
commitlog_sync_period: 10000ms
data_file_directories: [ \"{data}/data\" ]
commitlog_directory: \"{data}/commitlog\"
saved_caches_directory: \"{data}/saved_caches\"
hints_directory: \"{data}/hints\"
cdc_raw_directory: \"{data}/cdc_raw\"
"
    )
}

const LOGGING: &str = r#"<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %level %logger{0}: %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
"#;

/// An OPTIONS frame of the native protocol, version 4, without a body.
const OPTIONS: [u8; 9] = [0x04, 0, 0, 0, 0x05, 0, 0, 0, 0];
/// The answer's version byte and opcode (SUPPORTED).
const SUPPORTED: (u8, u8) = (0x84, 0x06);

fn answers(port: u16) -> Result<()> {
    let mut stream = connect(port)?;
    stream.write_all(&OPTIONS)?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [version, _, _, _, opcode, ..] = head;
    if (version, opcode) == SUPPORTED {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::InvalidData, "not the answer of a database"))
    }
}
