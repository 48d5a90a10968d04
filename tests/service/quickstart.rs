//! The commands of the README's quickstart, taken from the README and run to the letter, do what it says.
//!
//! What only a person at a terminal does is left to him: starting the services, building, exporting variables. The port of
//! `/metrics` is another one, because the services are shared.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::suite::{Services, Suite};
use crate::support::poll::until;
use crate::support::process::{Campaignd, Folder, http_get, program};
use crate::support::settings::free_port;
use crate::support::stage::Handled;
use crate::support::unique;

const README: &str = include_str!("../../README.md");
/// Commands that a block may hold and that this story does in its own way.
const DONE_HERE: [&str; 6] = ["make ", "cargo ", "export ", "campaignd run", "curl ", "cp "];

pub fn stories(suite: &mut Suite) {
    suite.story("quickstart::the_commands_of_the_readme_do_what_it_says", |services| async move {
        the_commands_of_the_readme_do_what_it_says(&services);
    });
}

fn the_commands_of_the_readme_do_what_it_says(services: &Services) {
    let folder = Folder::new();
    let port = free_port();
    let config = folder.path().join("campaignd.toml");
    std::fs::write(&config, configuration(services, port)).unwrap();
    copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples"), &folder.path().join("samples"));
    let blocks = blocks();
    let (start, _) = enumerate(&blocks, "campaignd run");
    let run = |block: &str| run(block, folder.path(), &config);

    // The preparation, twice: each may be repeated.
    for block in &blocks[..=start] {
        run(block);
        run(block);
    }
    let mut process = Campaignd::run(&config, port, None);
    until("the process to be ready", || process.ready());

    let (three, events) = enumerate(&blocks, "campaignd produce --file");
    assert!(three > start && events.contains("decisions tail"), "the order of the README is another now");
    let text = run(events);
    for campaign in ["welcome", "gold_purchase", "early_purchase"] {
        assert!(text.contains(campaign), "no {campaign} in\n{text}");
    }
    until("the audit trail to hold the three decisions", || {
        let rows = run("campaignd audit ada --output json");
        if rows.matches("decision_id").count() == 3 { Ok(()) } else { Err(rows) }
    });

    let (_, many) = enumerate(&blocks, "campaignd generate");
    let text = run(many);
    println!("{text}");
    let handled = until("the generated events to be handled", || {
        let handled = Handled::of(&mut process);
        if handled.total() == 20_003 { Ok(handled) } else { Err(format!("{handled:?}")) }
    });
    // What generate prints is what became of it, the one duplicate of the three lines added.
    let printed: Vec<u64> =
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    for (what, count) in [("duplicates", handled.duplicates - 1), ("poison", handled.dead)] {
        assert!(count > 0 && printed.contains(&count), "{count} {what}, but generate printed\n{text}");
    }
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(http_get(port, path).map(|(status, _)| status), Some(200), "{path}");
    }

    let (_, change) = enumerate(&blocks, "campaignd campaigns check");
    assert!(run(change).contains("gold_purchase"));
    process.terminate();
    let (status, _) = process.wait(Duration::from_secs(35));
    assert_eq!(status.code(), Some(0), "{status}");
}

/// As `services up` writes it, with names of this story alone.
fn configuration(services: &Services, port: u16) -> String {
    format!(
        "[kafka]\nbrokers = {:?}\n[registry]\nurl = {:?}\n[store]\nkind = \"scylla\"\n[store.scylla]\nnodes = [{:?}]\n\
         keyspace = {:?}\nreplication_factor = 1\n[http]\nbind = \"127.0.0.1:{port}\"\n",
        services.kafka,
        services.registry,
        services.cassandra,
        unique("quickstart"),
    )
}

/// The indented blocks of the quickstart on real services.
fn blocks() -> Vec<String> {
    let from = README.find("### With `make services`").expect("the heading of the quickstart");
    let length = README[from..].find("### With docker compose").expect("the heading behind it");
    let mut blocks = vec![String::new()];
    for line in README[from..from + length].lines() {
        match line.strip_prefix("    ") {
            Some(code) => {
                let block = blocks.last_mut().unwrap();
                block.push_str(code);
                block.push('\n');
            }
            // A blank line may stand inside a block; text ends it.
            None if !line.is_empty() && !blocks.last().unwrap().is_empty() => blocks.push(String::new()),
            None => {}
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// The first block with this command, and where it stands.
fn enumerate<'a>(blocks: &'a [String], command: &str) -> (usize, &'a str) {
    let found = blocks.iter().enumerate().find(|(_, block)| block.contains(command));
    found
        .map(|(index, block)| (index, block.as_str()))
        .unwrap_or_else(|| panic!("the README has no {command}"))
}

/// Runs a block as a newcomer pastes it, but stops at the first command that fails; returns what it printed.
fn run(block: &str, folder: &Path, config: &Path) -> String {
    let script: String = block
        .lines()
        .filter(|line| !DONE_HERE.iter().any(|own| line.starts_with(own)))
        .fold(String::from("set -eu\n"), |mut script, line| {
            script.push_str(line);
            script.push('\n');
            script
        });
    let bin = Path::new(program()).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(bin.to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .unwrap();
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(&script)
        .current_dir(folder)
        .env("PATH", path)
        .env("CAMPAIGND_CONFIG", config)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(folder.join("out")).unwrap())
        .stderr(std::fs::File::create(folder.join("err")).unwrap())
        .spawn()
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(120);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().ok();
            panic!("does not end:\n{script}\nso far:\n{}\n{}", read("out"), read("err"));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "ended with {status}:\n{script}\n{}\n{}", read("out"), read("err"));
    read("out")
}

fn copy(from: impl AsRef<Path>, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
