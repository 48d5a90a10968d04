//! What a user of the command line meets when something is not right: the reason, the remedy, and an exit code that
//! means something, before anything is opened.

use std::process::Output;

use crate::support::mock::MockKafka;
use crate::support::process::{Folder, campaignd};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn assert_refused(output: &Output, parts: &[&str]) {
    let text = text(output);
    assert_eq!(output.status.code(), Some(64), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

fn file(folder: &Folder, text: &str) -> String {
    let path = folder.path().join("campaignd.toml");
    std::fs::write(&path, text).expect("the file is written");
    path.display().to_string()
}

#[test]
fn a_bad_configuration_is_refused_whole_before_the_port_opens() {
    let folder = Folder::new();
    let config = file(
        &folder,
        "[kafka]\nbroker = \"a:1\"\n[group]\nsession_timeout_ms = 1\n[pipeline]\nlanes = \"x\"\n",
    );
    let output = campaignd(&["run", "--config", &config], folder.path());
    assert_refused(
        &output,
        &["3 problems", "kafka.broker ", "group.session_timeout_ms = 1", "pipeline.lanes = \"x\""],
    );
    assert!(!text(&output).contains("/metrics"), "the port was opened before the configuration was checked");
}

#[test]
fn bad_usage_exits_64_and_help_exits_0() {
    let folder = Folder::new();
    assert_refused(&campaignd(&["runn"], folder.path()), &["runn", "--help"]);
    assert_refused(&campaignd(&["topology", "apply", "--partitions", "0"], folder.path()), &["1..=10000"]);
    assert_eq!(campaignd(&["--version"], folder.path()).status.code(), Some(0));
}

#[test]
fn dead_letters_that_cannot_be_meant_are_refused_before_anything_opens() {
    let folder = Folder::new();
    // Nobody listens there; whoever asks would fail with another exit code.
    let config = file(&folder, "[kafka]\nbrokers = \"127.0.0.1:1\"\n");
    let refused = |arguments: &[&str], parts: &[&str]| {
        let output = campaignd(&[&["dlq"], arguments, &["--config", &config]].concat(), folder.path());
        assert_refused(&output, parts);
    };
    refused(&["list", "--code", "bad_avo"], &["no error code \"bad_avo\"", "did you mean bad_avro?"]);
    refused(&["list", "--by", "color"], &["color", "code, topic, partition, schema, day, hour"]);
    refused(&["list", "--since", "1h", "--until", "2h"], &["--since must be before --until"]);
    refused(&["show", "118"], &["2@118"]);
    refused(&["show", "2@118", "--code", "bad_avro"], &["cannot be used with"]);
    refused(&["show", "--from-offset", "3"], &["--partition"]);
    refused(&["show", "--partition", "0", "--from-offset", "3", "--to-offset", "2"], &["3", "2"]);
    refused(&["replay"], &["--code", "--all"]);
    refused(&["replay", "--all", "--user", "ada"], &["cannot be used with"]);
    refused(&["replay", "--all", "--max-replays", "0"], &["1..=1000"]);
    refused(&["replay", "--user", ""], &["a user id has 1 to 256 bytes"]);
    refused(&["purge"], &["--all"]);
    refused(&["purge", "2@118", "2@7"], &["partition 2 is named twice"]);
}

#[test]
fn every_command_helps_with_an_example() {
    let folder = Folder::new();
    let root = campaignd(&["--help"], folder.path());
    let help = text(&root);
    let listed = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands: Vec<&str> = listed
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"run") && commands.contains(&"topology"), "{help}");
    for command in commands {
        assert_examples(&[command], &folder);
    }
}

/// A command shows examples, or has subcommands that do.
fn assert_examples(command: &[&str], folder: &Folder) {
    let output = campaignd(&[command, &["--help"]].concat(), folder.path());
    let help = text(&output);
    assert_eq!(output.status.code(), Some(0), "{help}");
    let subcommands: Vec<String> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect();
    if subcommands.is_empty() {
        assert!(help.contains("Example"), "{} has no example:\n{help}", command.join(" "));
    }
    for subcommand in &subcommands {
        assert_examples(&[command, &[subcommand.as_str()]].concat(), folder);
    }
}

#[test]
fn topics_that_are_missing_or_too_small_are_named_and_no_partition_is_taken() {
    let mock = MockKafka::start(&[("events", 4), ("campaigns", 1), ("decisions", 2), ("activity", 4)]);
    let folder = Folder::new();
    let config = file(
        &folder,
        &format!(
            "[kafka]\nbrokers = {:?}\n[store]\nkind = \"embedded\"\n[store.embedded]\npath = \"state\"\n[http]\nbind = \"127.0.0.1:0\"\n",
            mock.kafka.brokers
        ),
    );
    let migrated = campaignd(&["store", "migrate", "--config", &config], folder.path());
    assert!(migrated.status.success(), "{}", text(&migrated));
    let output = campaignd(&["run", "--config", &config], folder.path());
    assert_refused(
        &output,
        &[
            "topic decisions has 2 partitions",
            "at least 4",
            "topic events.dlq does not exist",
            "campaignd topology apply",
        ],
    );
    assert!(!text(&output).contains("joining the group"));
}

#[test]
fn a_secret_shows_nowhere() {
    let folder = Folder::new();
    let config = file(&folder, "[registry]\nuser = \"u\"\npassword = \"hunter2\"\n");
    for form in ["human", "json"] {
        let output = campaignd(&["config", "--config", &config, "--output", form], folder.path());
        assert!(output.status.success(), "{}", text(&output));
        assert!(!text(&output).contains("hunter2"));
    }
}
