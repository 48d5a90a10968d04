//! Fetches the services from Maven Central, once, into a cache folder.
//!
//! The cache is `$CAMPAIGND_SERVICES_CACHE`, or `campaignd/services` in `$XDG_CACHE_HOME` or `~/.cache`. A folder of it is
//! complete or not there: it is filled under another name and renamed. A lock lets several tools share it.

use crate::TICK;
use crate::group::Group;
use crate::java::on_path;
use crate::stop::Stop;
use anyhow::{Context, bail};
use signal_hook::consts::SIGTERM;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The plugin that copies and unpacks, pinned: its default differs between Maven versions.
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
/// Downloads fail now and then.
const ATTEMPTS: u32 = 3;
/// A cold download takes one to two minutes on a slow line.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub enum Artifacts {
    /// Jars `group:artifact:version`, with all that they need.
    Jars(&'static [&'static str]),
    /// One archive `group:artifact:version:type:classifier`, unpacked.
    Archive(&'static str),
}

/// Finds Maven.
pub fn find_maven() -> anyhow::Result<PathBuf> {
    on_path("mvn")
        .context("Maven is needed to fetch the services (no `mvn` on PATH): install it (Debian: maven)")
}

/// Whether the cache holds this already.
pub fn is_fetched(name: &str) -> bool {
    cache_folder().is_ok_and(|cache| cache.join(name).is_dir())
}

/// The folder that holds the artifacts; fetches them if it is not there.
pub fn fetch(name: &str, artifacts: Artifacts, java: &Path, stop: &Stop) -> anyhow::Result<PathBuf> {
    let cache = cache_folder()?;
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let wanted = cache.join(name);
    if wanted.is_dir() {
        return Ok(wanted);
    }
    let lock = File::create(cache.join("lock")).context("cannot create the lock of the cache")?;
    while lock.try_lock().is_err() {
        stop.check()?;
        std::thread::sleep(TICK);
    }
    if wanted.is_dir() {
        return Ok(wanted);
    }
    eprintln!("services: fetching {name} from Maven Central into {} (once)", cache.display());
    let partial =
        tempfile::Builder::new().prefix(".partial-").tempdir_in(&cache).context("cannot create a folder")?;
    for attempt in 1..=ATTEMPTS {
        match run_maven(artifacts, partial.path(), java, stop) {
            Ok(()) => break,
            Err(error) if attempt < ATTEMPTS && stop.requested().is_none() => {
                eprintln!("services: {error:#}\nservices: trying again ({attempt} of {ATTEMPTS} failed)");
            }
            Err(error) => {
                return Err(error.context(format!(
                    "{name} could not be fetched: is Maven Central, or a mirror named in ~/.m2/settings.xml, reachable?"
                )));
            }
        }
    }
    std::fs::rename(partial.path().join("out"), &wanted)
        .with_context(|| format!("Maven ended well but left nothing for {}", wanted.display()))?;
    Ok(wanted)
}

fn cache_folder() -> anyhow::Result<PathBuf> {
    let set = |key: &str| std::env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("CAMPAIGND_SERVICES_CACHE") {
        return Ok(folder);
    }
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    let base =
        base.context("neither XDG_CACHE_HOME nor HOME is set: set CAMPAIGND_SERVICES_CACHE to a folder")?;
    Ok(base.join("campaignd/services"))
}

/// One run of Maven that fills `folder/out`.
fn run_maven(artifacts: Artifacts, folder: &Path, java: &Path, stop: &Stop) -> anyhow::Result<()> {
    let log = folder.join("maven.log");
    let output = File::create(&log).context("cannot create Maven's log")?;
    let mut command = Command::new(find_maven()?);
    // -C: a download whose checksum differs is an error, not a warning.
    command.args(["-B", "-C", "-ntp"]).current_dir(folder);
    let out = folder.join("out");
    match artifacts {
        Artifacts::Jars(jars) => {
            std::fs::write(folder.join("pom.xml"), pom(jars)?).context("cannot write the pom")?;
            command.arg(format!("{PLUGIN}:copy-dependencies")).arg("-DincludeScope=runtime");
        }
        Artifacts::Archive(archive) => {
            command.arg(format!("{PLUGIN}:unpack")).arg(format!("-Dartifact={archive}"));
        }
    }
    command.arg(format!("-DoutputDirectory={}", out.display()));
    if let Some(home) = java.parent().and_then(Path::parent) {
        command.env("JAVA_HOME", home);
    }
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut maven = Group::spawn("mvn", &mut command)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = maven.ended()? {
            if status.success() {
                return Ok(());
            }
            bail!("Maven failed ({status}); its last words:\n{}", tail(&log));
        }
        if stop.requested().is_some() || Instant::now() > deadline {
            maven.stop(SIGTERM, Instant::now() + Duration::from_secs(2));
            stop.check()?;
            bail!("Maven took longer than {} seconds", PATIENCE.as_secs());
        }
        std::thread::sleep(TICK);
    }
}

/// A project that depends on these jars and on nothing else.
fn pom(jars: &[&str]) -> anyhow::Result<String> {
    let mut dependencies = String::new();
    for jar in jars {
        let parts: Vec<&str> = jar.split(':').collect();
        let [group, artifact, version] = parts.as_slice() else { bail!("not group:artifact:version: {jar}") };
        dependencies.push_str(&format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>"
        ));
    }
    Ok(format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>campaignd.services</groupId><artifactId>jars</artifactId><version>1</version>\
         <packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>\n"
    ))
}

/// The end of a log, for an error message.
pub fn tail(log: &Path) -> String {
    const LINES: usize = 40;
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{pom, tail};

    #[test]
    fn a_pom_names_each_jar_and_refuses_what_is_none() {
        let text = pom(&["a.b:c:1", "d:e:2.0"]).unwrap();
        assert!(text.contains("<groupId>a.b</groupId><artifactId>c</artifactId><version>1</version>"));
        assert_eq!(text.matches("<dependency>").count(), 2);
        assert!(pom(&["a.b:c"]).is_err());
    }

    #[test]
    fn the_tail_of_a_log_is_bounded() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        std::fs::write(log.path(), lines.join("\n")).unwrap();
        let end = tail(log.path());
        assert!(end.starts_with("line 60") && end.ends_with("line 99"), "{end}");
        assert_eq!(tail(std::path::Path::new("/nowhere/at/all")), "");
    }
}
