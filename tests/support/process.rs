//! campaignd as a process: started with a file, watched from outside, killed when a story says so.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::poll::until_within;

const PROGRAM: &str = env!("CARGO_BIN_EXE_campaignd");

/// Path of the program under test.
pub fn program() -> &'static str {
    PROGRAM
}

/// A running `campaignd run`. Dropping it kills it; when the thread panics, the end of its log is shown.
pub struct Campaignd {
    child: Child,
    log: PathBuf,
    http_port: u16,
}

/// Where a process is to stop in its tracks.
pub struct Pause<'a> {
    /// Name of the pause point.
    pub point: &'a str,
    /// At which passage.
    pub after: u32,
    /// The process writes the name there when it is there.
    pub file: &'a Path,
}

impl Campaignd {
    /// Starts `run` with a configuration; its log goes to a file beside it, appended to over restarts.
    pub fn run(config: &Path, http_port: u16, pause: Option<&Pause<'_>>) -> Campaignd {
        let log = config.with_extension("log");
        let file = OpenOptions::new().create(true).append(true).open(&log).expect("the log file opens");
        let mut command = Command::new(PROGRAM);
        command.arg("run").arg("--config").arg(config).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a second handle")).stderr(file);
        if let Some(pause) = pause {
            std::fs::remove_file(pause.file).ok();
            command.env("CAMPAIGND_PAUSE_POINT", pause.point);
            command.env("CAMPAIGND_PAUSE_AFTER", pause.after.to_string());
            command.env("CAMPAIGND_PAUSE_FILE", pause.file);
        }
        let child = command.spawn().expect("campaignd starts");
        Campaignd { child, log, http_port }
    }

    /// Fails the story when the process has ended by itself.
    pub fn must_live(&mut self) {
        if let Some(status) = self.child.try_wait().expect("the child can be asked") {
            panic!("campaignd ended by itself with {status}:\n{}", self.log_tail());
        }
    }

    /// Whether `/readyz` says yes.
    pub fn ready(&mut self) -> Result<(), String> {
        self.must_live();
        match http_get(self.http_port, "/readyz") {
            Some((200, _)) => Ok(()),
            Some((status, body)) => Err(format!("{status}: {body}")),
            None => Err("nobody listens".to_owned()),
        }
    }

    /// The samples on `/metrics`, by name with labels; empty when nobody listens.
    pub fn metrics(&mut self) -> Metrics {
        self.must_live();
        let text = http_get(self.http_port, "/metrics").map(|(_, body)| body).unwrap_or_default();
        Metrics::parse(&text)
    }

    /// SIGKILL, and the process is gone when it returns.
    pub fn kill(mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process can be waited for");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        signal("TERM", self.child.id());
    }

    /// Waits for the end and returns the status and how long it took.
    pub fn wait(&mut self, patience: Duration) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = until_within(patience, "campaignd to end", || {
            self.child.try_wait().expect("the child can be asked").ok_or_else(|| "it runs".to_owned())
        });
        (status, start.elapsed())
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Campaignd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- end of {}:\n{}\n---", self.log.display(), self.log_tail());
        }
    }
}

/// Sends a signal by the shell's own `kill`.
pub fn signal(name: &str, pid: u32) {
    let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().expect("a shell");
    assert!(status.success(), "the signal {name} cannot be sent to {pid}");
}

/// Runs a command of campaignd to its end.
pub fn campaignd(arguments: &[&str], folder: &Path) -> Output {
    campaignd_with_input(arguments, folder, "")
}

/// The same with text on standard input.
pub fn campaignd_with_input(arguments: &[&str], folder: &Path, input: &str) -> Output {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("campaignd starts");
    child.stdin.take().expect("it has an input").write_all(input.as_bytes()).ok();
    child.wait_with_output().expect("campaignd ends")
}

/// Runs a command that must succeed and returns what it printed.
pub fn must_succeed(arguments: &[&str], folder: &Path) -> String {
    let output = campaignd(arguments, folder);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "campaignd {} ended with {}:\n{text}\n{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// An HTTP GET on loopback: status and body.
pub fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    // A process at a pause point may not answer: the thread that would is the one that waits.
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Samples in the text format of Prometheus.
#[derive(Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Metrics {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Metrics(samples.collect())
    }

    /// The sum of all samples of this name whose labels contain all of these texts, such as `outcome="allow"`; nothing
    /// when there is none.
    pub fn value(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let all = self.0.iter().filter(|(sample, _)| {
            let (found, rest) = sample.split_once('{').unwrap_or((sample, ""));
            found == name && labels.iter().all(|label| rest.contains(label))
        });
        all.map(|(_, value)| *value).reduce(|sum, value| sum + value)
    }

    /// The same as a count, 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        self.value(name, labels).unwrap_or_default() as u64
    }
}

/// A folder that goes away when the story has passed and stays when it has failed.
pub struct Folder(Option<tempfile::TempDir>);

impl Folder {
    /// A new one.
    pub fn new() -> Folder {
        Folder(Some(tempfile::tempdir().expect("a temporary folder")))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("it is there until dropped").path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.0.take()
        {
            eprintln!("the folder of the story stays: {}", folder.keep().display());
        }
    }
}

/// Creates an empty file; a story uses it as a sign.
pub fn touch(path: &Path) {
    File::create(path).expect("the file can be created");
}
