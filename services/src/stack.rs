//! The three services together: started side by side, waited for, described, ended.

use crate::fetch::{self, Artifacts};
use crate::group::Group;
use crate::guard::{self, Guard};
use crate::stop::Stop;
use crate::{TICK, apicurio, cassandra, java, kafka, ports};
use anyhow::{Context, bail};
use signal_hook::consts::SIGKILL;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long all services may take: ten seconds as a rule, minutes on a machine that compiles beside it.
const START_PATIENCE: Duration = Duration::from_secs(600);
/// Another program may take a port between its choice and its use.
const START_ATTEMPTS: u32 = 3;
/// How logs say that a port is taken.
const PORT_TAKEN: [&str; 3] = ["Address already in use", "BindException", "already seems to be in use"];
/// The configuration for `campaignd`, with `{kafka}`, `{cassandra}` and `{registry}` to be filled in.
const CONFIG: &str = include_str!("campaignd.toml");

/// All services there are.
const RECIPES: [Recipe; 3] = [kafka::RECIPE, cassandra::RECIPE, apicurio::RECIPE];

/// What is missing to start the services, a line each, saying what to do. Maven is only needed until all is fetched.
pub fn missing() -> Vec<String> {
    let java = java::find().err();
    let fetched = RECIPES.iter().all(|recipe| fetch::is_fetched(recipe.cache_name));
    let maven = if fetched { None } else { fetch::find_maven().err() };
    java.into_iter().chain(maven).map(|error| format!("{error:#}")).collect()
}

/// What every service is started with.
#[derive(Debug)]
pub struct Site {
    /// The `java` that runs it.
    pub java: PathBuf,
    /// The folder with what was fetched for it; shared, never written.
    pub parts: PathBuf,
    /// Its private folder.
    pub folder: PathBuf,
}

impl Site {
    /// A `java` command in the private folder, which keeps all temporary files there.
    pub fn java(&self) -> Command {
        let mut java = Command::new(&self.java);
        java.current_dir(&self.folder);
        java.arg(format!("-Djava.io.tmpdir={}", self.folder.display()));
        // Otherwise the machine keeps a statistics file per process, which a killed process leaves behind.
        java.args(["-XX:-UsePerfData", "-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true"]);
        java.env_remove("JAVA_TOOL_OPTIONS").stdin(Stdio::null());
        java
    }

    /// Writes a file into the private folder.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}

/// One kind of service: how it starts, and how it answers once it is up.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// As it is called in messages and folders.
    pub name: &'static str,
    /// The folder in the cache; names the version.
    pub cache_name: &'static str,
    /// What is fetched.
    pub artifacts: Artifacts,
    /// Prepares the private folder and returns the command; the second port is for its inner use.
    pub command: fn(&Site, port: u16, inner_port: u16) -> anyhow::Result<Command>,
    /// Ok once the service does its work: a real answer to a real request.
    pub answers: fn(port: u16) -> std::io::Result<()>,
}

/// A service that runs.
#[derive(Debug)]
struct Service {
    recipe: Recipe,
    port: u16,
    process: Group,
    log: PathBuf,
    reported_dead: bool,
}

impl Service {
    /// Its last words, with the start of the message.
    fn obituary(&self, what: &str) -> String {
        format!("{} {what}; the end of its log:\n{}", self.recipe.name, fetch::tail(&self.log))
    }
}

/// The services, up and answering. Dropping it ends them and removes their folder.
#[derive(Debug)]
pub struct Stack {
    kafka: Service,
    cassandra: Service,
    registry: Service,
    config: Option<PathBuf>,
    /// Held for what its drop does; the last fields to go.
    room: Room,
}

/// The private folder and the guard that watches over it.
#[derive(Debug)]
struct Room {
    folder: Option<TempDir>,
    guard: Guard,
}

impl Room {
    fn open() -> anyhow::Result<Self> {
        let mut guard = Guard::start()?;
        let folder = tempfile::Builder::new().prefix("campaignd-services-").tempdir();
        let folder = folder.context("cannot create a temporary folder")?;
        guard.watch_path(folder.path())?;
        Ok(Self { folder: Some(folder), guard })
    }

    fn path(&self) -> anyhow::Result<&Path> {
        self.folder.as_ref().map(TempDir::path).context("the private folder is gone")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.folder.take().map(TempDir::close) {
            eprintln!("services: cannot remove the private folder: {error}");
        }
        self.guard.dismiss();
    }
}

impl Stack {
    /// Fetches what is missing, starts all three, and returns once each has answered.
    pub fn start(stop: &Stop) -> anyhow::Result<Self> {
        let java = java::find()?;
        let mut parts = Vec::new();
        for recipe in RECIPES {
            parts.push(fetch::fetch(recipe.cache_name, recipe.artifacts, &java, stop)?);
        }
        let [kafka_parts, cassandra_parts, registry_parts] = parts.as_slice() else {
            bail!("a service has no parts");
        };
        let mut room = Room::open()?;
        let begun = Instant::now();
        let deadline = begun + START_PATIENCE;
        // The slowest first.
        let mut cassandra = launch(cassandra::RECIPE, &java, cassandra_parts, &mut room)?;
        let mut registry = launch(apicurio::RECIPE, &java, registry_parts, &mut room)?;
        let mut kafka = launch(kafka::RECIPE, &java, kafka_parts, &mut room)?;
        for (service, parts) in
            [(&mut kafka, kafka_parts), (&mut registry, registry_parts), (&mut cassandra, cassandra_parts)]
        {
            await_answer(service, &java, parts, &mut room, deadline, stop)?;
        }
        eprintln!(
            "services: Kafka, Cassandra and Apicurio are up after {:.1} s",
            begun.elapsed().as_secs_f32()
        );
        Ok(Self { kafka, cassandra, registry, config: None, room })
    }

    /// `host:port` of the broker.
    pub fn kafka(&self) -> String {
        format!("127.0.0.1:{}", self.kafka.port)
    }

    /// `host:port` of the CQL port.
    pub fn cassandra(&self) -> String {
        format!("127.0.0.1:{}", self.cassandra.port)
    }

    /// The registry's Confluent API.
    pub fn registry(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.registry.port, apicurio::CONFLUENT_API)
    }

    /// What the service suite reads.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        for (key, address, service) in [
            ("CAMPAIGND_TEST_KAFKA", self.kafka(), &self.kafka),
            ("CAMPAIGND_TEST_CASSANDRA", self.cassandra(), &self.cassandra),
            ("CAMPAIGND_TEST_REGISTRY", self.registry(), &self.registry),
        ] {
            variables.push((key.to_owned(), address));
            variables.push((format!("{key}_PID"), service.process.pid().number().to_string()));
        }
        variables
    }

    /// Writes a campaignd.toml for these services; it goes when they go.
    pub fn write_config(&mut self, path: &Path) -> anyhow::Result<()> {
        let text = CONFIG
            .replace("{kafka}", &self.kafka())
            .replace("{cassandra}", &self.cassandra())
            .replace("{registry}", &self.registry());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        self.room.guard.watch_path(&std::path::absolute(path)?)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        self.config = Some(path.to_owned());
        Ok(())
    }

    /// Has a further process group killed should the tool die.
    pub fn guard_group(&mut self, group: &Group) -> anyhow::Result<()> {
        self.room.guard.watch_group(group.pid())
    }

    /// A report on a service that has ended, once for each.
    pub fn newly_dead(&mut self) -> Option<String> {
        for service in [&mut self.kafka, &mut self.cassandra, &mut self.registry] {
            if !service.reported_dead && matches!(service.process.ended(), Ok(Some(_))) {
                service.reported_dead = true;
                return Some(service.obituary("has ended"));
            }
        }
        None
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // Nothing of theirs is kept, so there is nothing to shut down gently.
        for service in [&mut self.kafka, &mut self.cassandra, &mut self.registry] {
            service.process.stop(SIGKILL, Instant::now());
        }
        if let Some(config) = self.config.take() {
            let _ = guard::remove(&config);
        }
    }
}

/// Starts one service on new ports in a new folder.
fn launch(recipe: Recipe, java: &Path, parts: &Path, room: &mut Room) -> anyhow::Result<Service> {
    let [port, inner_port] = ports::free()?;
    let folder = room.path()?.join(format!("{}-{port}", recipe.name));
    std::fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let site = Site { java: java.to_owned(), parts: parts.to_owned(), folder };
    let mut command = (recipe.command)(&site, port, inner_port)?;
    let log = site.folder.join("output.log");
    let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    command.stdout(output.try_clone()?).stderr(output);
    let process = Group::spawn(recipe.name, &mut command)?;
    room.guard.watch_group(process.pid())?;
    Ok(Service { recipe, port, process, log, reported_dead: false })
}

/// Waits until the service answers; starts it again when another program was faster to take its port.
fn await_answer(
    service: &mut Service,
    java: &Path,
    parts: &Path,
    room: &mut Room,
    deadline: Instant,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut attempt = 1;
    loop {
        stop.check()?;
        if service.process.ended()?.is_some() {
            let words = fetch::tail(&service.log);
            let port_taken = PORT_TAKEN.iter().any(|sign| words.contains(sign));
            if !port_taken || attempt == START_ATTEMPTS {
                bail!("{}", service.obituary("ended before it was up"));
            }
            attempt += 1;
            *service = launch(service.recipe, java, parts, room)?;
        }
        match (service.recipe.answers)(service.port) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                bail!("{}", service.obituary(&format!("did not answer in time ({error})")));
            }
            Err(_) => std::thread::sleep(TICK),
        }
    }
}
