//! `campaignd campaigns`: check files, put them live, show what is live.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArguments, DONE, FAILED, Output, UsageError};
use crate::campaign::diagnostic::Severity;
use crate::campaign::folder::Folder;
use crate::campaign::live::LiveCampaigns;
use crate::campaign::set::LiveCampaign;
use crate::config::Config;
use crate::kafka::campaigns::{CampaignsTopic, Desired, Kind, Published, publish};

/// Check campaign files, put them live, show what is live
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[allow(missing_docs, reason = "a doc comment here would replace the command's own help text")]
#[derive(Debug, Subcommand)]
enum Command {
    Check(CheckArguments),
    Apply(ApplyArguments),
    List(ListArguments),
}

/// Check a folder of campaign files, without contacting anything
///
/// Reads every .yaml file in the folder: catalog.yaml is the catalog, each other file one campaign. Reports all
/// problems with file, line and column. Without a catalog.yaml, questions about history and personal traits are not
/// checked.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 nothing forbids publishing, 1 errors.\n\n\
                        Example:\n  campaignd campaigns check samples/campaigns")]
struct CheckArguments {
    /// Folder with the files.
    dir: PathBuf,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Make the campaigns topic hold what a folder holds
///
/// Checks the folder as `check` does, against the live catalog when it has none. Then writes the campaigns and the
/// catalog that differ from the live ones, all in one transaction; what the folder does not name stays as it is, and
/// nothing is deleted. A campaign without a status keeps its live status; a new one becomes active. Of two people who
/// apply at once, one sees the other's result or fails.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  campaignd campaigns apply samples/campaigns --config campaignd.toml")]
struct ApplyArguments {
    /// Folder with the files.
    dir: PathBuf,
    /// Who is said to have written the changes.
    #[arg(long, env = "USER", default_value = "unknown")]
    author: String,
    #[command(flatten)]
    config: ConfigArguments,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// List the live campaigns
///
/// Shows each campaign's status, priority, version and triggers, and the records of the topic that cannot be used.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  campaignd campaigns list --config campaignd.toml")]
struct ListArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Does what the subcommand says.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Check(arguments) => check(&arguments),
        // The clients block, so they stay off the executor's threads.
        Command::Apply(arguments) => tokio::task::spawn_blocking(move || apply(&arguments)).await?,
        Command::List(arguments) => tokio::task::spawn_blocking(move || list(&arguments)).await?,
    }
}

/// The topic as configured.
pub fn topic(config: &Config) -> CampaignsTopic {
    CampaignsTopic {
        request_timeout: std::time::Duration::from_millis(config.kafka.timeout_ms),
        ..CampaignsTopic::new(config.client_config(), &config.topics.campaigns)
    }
}

/// The transactional id that all writers of a group share (rule C1).
pub fn transactional_id(config: &Config) -> String {
    format!("{}-campaigns", config.group.id)
}

fn check(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let mut folder = read_folder(&arguments.dir)?;
    folder.check(None);
    match arguments.output {
        Output::Json => {
            println!("{}", json!({ "definitions": folder.len(), "diagnostics": folder.diagnostics }))
        }
        Output::Human => {
            folder.diagnostics.iter().for_each(|diagnostic| println!("{diagnostic}"));
            if !folder.has_catalog_file {
                println!("there is no catalog.yaml: history and personal traits are not checked");
            }
            println!("{}", summary(&folder));
        }
    }
    Ok(ExitCode::from(if folder.has_errors() { FAILED } else { DONE }))
}

fn apply(arguments: &ApplyArguments) -> anyhow::Result<ExitCode> {
    let mut folder = read_folder(&arguments.dir)?;
    let config = arguments.config.load_and_log()?;
    let topic = topic(&config);
    // Files that are wrong by themselves are refused before anything is contacted.
    let live = if folder.has_errors() || folder.has_catalog_file { None } else { Some(topic.read()?) };
    let live_catalog =
        live.map(|live| live.catalog().map(|catalog| catalog.as_ref().clone()).unwrap_or_default());
    folder.check(live_catalog.as_ref());
    if folder.has_errors() {
        match arguments.output {
            Output::Json => println!("{}", json!({ "applied": false, "diagnostics": folder.diagnostics })),
            Output::Human => {
                folder.diagnostics.iter().for_each(|diagnostic| println!("{diagnostic}"));
                println!("{}; nothing was written", summary(&folder));
            }
        }
        return Ok(ExitCode::from(FAILED));
    }
    let desired = Desired {
        catalog: folder.catalog.as_ref().map(|catalog| catalog.value.clone()),
        campaigns: folder.campaigns.iter().map(|campaign| campaign.value.clone()).collect(),
        ..Desired::default()
    };
    let time = jiff::Timestamp::from_millisecond(jiff::Timestamp::now().as_millisecond())?.to_string();
    let published = publish(&topic, &transactional_id(&config), &desired, &arguments.author, &time)?;
    match arguments.output {
        Output::Json => println!("{}", published_json(&published, &folder)),
        Output::Human => {
            folder.diagnostics.iter().for_each(|diagnostic| println!("{diagnostic}"));
            print_published(&published);
        }
    }
    Ok(ExitCode::from(DONE))
}

fn published_json(published: &Published, folder: &Folder) -> serde_json::Value {
    let changes: Vec<_> = published
        .changes
        .iter()
        .map(|change| json!({ "key": change.key, "change": change.kind, "version": change.version }))
        .collect();
    json!({
        "applied": true, "changes": changes, "unchanged": published.unchanged, "diagnostics": folder.diagnostics,
    })
}

fn print_published(published: &Published) {
    let width = published.changes.iter().map(|change| change.key.len()).max().unwrap_or_default();
    for change in &published.changes {
        let sign = if change.kind == Kind::Added { '+' } else { '~' };
        println!("{sign} {:width$}  version {}", change.key, change.version);
    }
    let count = |kind| published.changes.iter().filter(|change| change.kind == kind).count();
    println!(
        "{} added, {} changed, {} unchanged",
        count(Kind::Added),
        count(Kind::Changed),
        published.unchanged
    );
}

fn list(arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load_and_log()?;
    let live = topic(&config).read()?;
    match arguments.output {
        Output::Json => println!("{}", list_json(&live)),
        Output::Human => print_list(&live),
    }
    Ok(ExitCode::from(DONE))
}

fn list_json(live: &LiveCampaigns) -> serde_json::Value {
    let set = live.snapshot();
    let row = |live: &LiveCampaign| {
        let campaign = &live.campaign;
        json!({
            "id": campaign.id, "status": campaign.effective_status().as_str(), "priority": campaign.priority,
            "version": live.version, "trigger": campaign.trigger, "description": campaign.description,
        })
    };
    let rejected: Vec<_> = live
        .rejected()
        .map(|one| json!({ "key": one.key, "offset": one.offset, "error": one.error }))
        .collect();
    json!({
        "campaigns": set.campaigns().map(|live| row(live)).collect::<Vec<_>>(),
        "catalog": live.catalog().is_some(), "rejected": rejected, "position": live.position(),
    })
}

fn print_list(live: &LiveCampaigns) {
    let set = live.snapshot();
    let width = set.campaigns().map(|live| live.campaign.id.len()).max().unwrap_or_default().max(2);
    if set.campaigns().len() > 0 {
        println!("{:width$}  STATUS  PRIORITY  VERSION  TRIGGER", "ID");
    }
    for one in set.campaigns() {
        let campaign = &one.campaign;
        let (status, trigger) = (campaign.effective_status().as_str(), campaign.trigger.join(", "));
        println!(
            "{:width$}  {status:6}  {:>8}  {:>7}  {trigger}",
            campaign.id, campaign.priority, one.version
        );
    }
    for rejected in live.rejected() {
        println!("! {rejected}");
    }
    let catalog = if live.catalog().is_some() { "a catalog" } else { "no catalog" };
    println!("{} campaigns, {catalog}, {} unusable records", set.campaigns().len(), live.rejected().len());
}

fn summary(folder: &Folder) -> String {
    let count = |severity| folder.diagnostics.iter().filter(|one| one.severity == severity).count();
    format!(
        "{} definitions read, {} errors, {} warnings",
        folder.len(),
        count(Severity::Error),
        count(Severity::Warning)
    )
}

/// Every .yaml file of a folder, by name.
fn read_folder(dir: &Path) -> anyhow::Result<Folder> {
    let entries = std::fs::read_dir(dir)
        .map_err(|error| UsageError(format!("the folder {} cannot be read: {error}", dir.display())))?;
    let mut files: Vec<(String, String)> = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading the folder {}", dir.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
            && path.is_file()
        {
            let text = std::fs::read_to_string(&path).map_err(|error| {
                UsageError(format!("the file {} cannot be read: {error}", path.display()))
            })?;
            files.push((path.display().to_string(), text));
        }
    }
    if files.is_empty() {
        return Err(UsageError(format!("the folder {} holds no .yaml file", dir.display())).into());
    }
    files.sort();
    Ok(Folder::read(files.iter().map(|(path, text)| (path.as_str(), text.as_str()))))
}
