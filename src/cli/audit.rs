//! `campaignd audit`: what was decided for a user, and why.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::table::{Column, aligned, plain, time};
use super::{ConfigArguments, DONE, UsageError, moment};
use crate::decision::{DecidedAction, Decision, Outcome, Reason};
use crate::store::{self, AuditQuery};

/// Show what was decided for a user, newest event first
///
/// Reads the audit trail: every decision as it was published, with its reason. The trail follows the decisions topic by
/// a moment. An embedded store can be read while no `run` holds it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  campaignd audit user-42 --config campaignd.toml\n  \
                  campaignd audit user-42 --since 7d --outcome suppress\n  \
                  campaignd audit user-42 --campaign welcome --output json")]
pub struct Arguments {
    /// The user's id.
    user: String,

    #[command(flatten)]
    config: ConfigArguments,

    /// Only decisions of events at or after this time: RFC 3339, a date, or how long ago (24h).
    #[arg(long, value_name = "TIME", value_parser = moment::parse_ms)]
    since: Option<i64>,

    /// Only decisions of events before this time.
    #[arg(long, value_name = "TIME", value_parser = moment::parse_ms)]
    until: Option<i64>,

    /// Only decisions of this campaign.
    #[arg(long, value_name = "ID")]
    campaign: Option<String>,

    /// Only decisions with this outcome.
    #[arg(long, value_enum)]
    outcome: Option<OutcomeFilter>,

    /// Show at most so many.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,

    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

/// An outcome on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutcomeFilter {
    Allow,
    Suppress,
    Holdout,
}

impl From<OutcomeFilter> for Outcome {
    fn from(filter: OutcomeFilter) -> Self {
        match filter {
            OutcomeFilter::Allow => Self::Allow,
            OutcomeFilter::Suppress => Self::Suppress,
            OutcomeFilter::Holdout => Self::Holdout,
        }
    }
}

/// Form of the rows.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Form {
    /// Aligned columns and a closing count.
    #[default]
    Table,
    /// One decision a line, as on `decisions tail`.
    Json,
}

/// Prints the user's decisions.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { user, config, since, until, campaign, outcome, limit, output } = arguments;
    if let (Some(since), Some(until)) = (since, until)
        && since >= until
    {
        return Err(UsageError("--since must be before --until".to_owned()).into());
    }
    let config = config.load_and_log()?;
    let (_, audit) = store::open(&config).await.context("cannot open the audit trail")?;
    let limit = limit as usize;
    // One more than is shown tells whether there are more.
    let query = AuditQuery {
        user_id: user,
        since_ms: since,
        until_ms: until,
        campaign_id: campaign,
        outcome: outcome.map(Outcome::from),
        limit: limit + 1,
    };
    let mut rows = audit.read_audit(&query).await.context("cannot read the audit trail")?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let decisions: Vec<Decision> = rows.into_iter().map(|row| row.decision).collect();
    match output {
        Form::Json => decisions.iter().for_each(|decision| println!("{}", decision.to_json())),
        Form::Table => print!("{}", table(&decisions, more)),
    }
    Ok(ExitCode::from(DONE))
}

fn table(decisions: &[Decision], more: bool) -> String {
    let columns = ["EVENT TIME", "OUTCOME", "CAMPAIGN", "EVENT", "REASON", "ACTION"].map(Column::text);
    let rows: Vec<Vec<String>> = decisions.iter().map(|decision| row(decision).to_vec()).collect();
    let mut text = aligned(&columns, &rows);
    let counted = match decisions.len() {
        0 => "no decisions".to_owned(),
        1 => "1 decision".to_owned(),
        many => format!("{many} decisions"),
    };
    let further = if more { ", there are more: raise --limit or move --until" } else { "" };
    text.push_str(&format!("{counted}{further}\n"));
    text
}

fn row(decision: &Decision) -> [String; 6] {
    [
        time(decision.occurred_at_ms),
        store::name(decision.outcome),
        plain(&decision.campaign_id),
        format!("{} {}", plain(&decision.event_type), plain(&decision.event_id)),
        reason(&decision.reason),
        action(&decision.action),
    ]
}

/// The code, and what a support person asks next.
fn reason(reason: &Reason) -> String {
    let mut text = store::name(reason.code);
    if let Some(limit) = &reason.limit {
        text.push_str(&format!(" ({}: {} of {} used", limit.limit, limit.used, limit.allowed));
        text.push_str(&match limit.reopens_at_ms {
            Some(again) => format!(", again from {})", time(again)),
            None => ", never again)".to_owned(),
        });
    }
    if let Some(winner) = &reason.outranked_by {
        text.push_str(&format!(" (by {})", plain(winner)));
    }
    text
}

fn action(action: &DecidedAction) -> String {
    let DecidedAction { kind, channel, template, variant, .. } = action;
    let parts = [Some(store::name(kind)), channel.clone(), template.clone(), variant.clone()];
    parts.iter().flatten().map(|part| plain(part)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::decision::{ActionKind, LimitReason, ReasonCode};

    fn decision(event_id: &str) -> Decision {
        Decision {
            decision_id: Uuid::nil(),
            event_id: event_id.to_owned(),
            user_id: "u".to_owned(),
            campaign_id: "welcome".to_owned(),
            campaign_version: 1,
            event_type: "purchase".to_owned(),
            occurred_at_ms: 1_768_473_000_000,
            decided_at_ms: 1_768_473_000_500,
            outcome: Outcome::Allow,
            reason: Reason { code: ReasonCode::Allowed, limit: None, outranked_by: None },
            action: DecidedAction {
                kind: ActionKind::Send,
                channel: Some("email".to_owned()),
                template: Some("WELCOME".to_owned()),
                variant: None,
                recipient: None,
                params: Vec::new(),
            },
            trace_id: None,
        }
    }

    #[test]
    fn rows_are_aligned_and_counted_last() {
        let mut capped = decision("event-2");
        capped.outcome = Outcome::Suppress;
        capped.reason = Reason {
            code: ReasonCode::OnceEver,
            limit: Some(LimitReason {
                limit: "once_per ever".to_owned(),
                used: 1,
                allowed: 1,
                reopens_at_ms: None,
            }),
            outranked_by: None,
        };
        let expected = "\
EVENT TIME                OUTCOME   CAMPAIGN  EVENT             REASON                                              ACTION
2026-01-15T10:30:00.000Z  allow     welcome   purchase e1       allowed                                             send email WELCOME
2026-01-15T10:30:00.000Z  suppress  welcome   purchase event-2  once_ever (once_per ever: 1 of 1 used, never again)  send email WELCOME
2 decisions, there are more: raise --limit or move --until
";
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let shown = table(&[decision("e1"), capped], true);
        let columns = |line: &str| {
            line.split("  ")
                .filter(|cell| !cell.is_empty())
                .map(|cell| cell.trim().to_owned())
                .collect::<Vec<_>>()
        };
        for (shown, expected) in lines(&shown).iter().zip(lines(expected)) {
            assert_eq!(columns(shown), columns(&expected));
        }
        let starts: Vec<Option<usize>> =
            lines(&shown)[1..3].iter().map(|line| line.find("send email")).collect();
        assert!(starts[0].is_some() && starts[0] == starts[1], "{shown}");
        assert_eq!(table(&[], false), "no decisions\n");
    }

    #[test]
    fn control_characters_of_a_producer_do_not_reach_the_terminal() {
        let shown = table(&[decision("\u{1b}[2J\n")], false);
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        assert_eq!(shown.lines().count(), 3, "{shown:?}");
    }
}
