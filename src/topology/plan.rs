//! What is to be done about the difference between wanted and actual topics. Pure.

use std::collections::BTreeMap;

use super::{Names, Role, Topic};

/// Room for our headers on retry records and dead letters, which are otherwise as large as what came in on `events`.
pub const HEADER_BYTES: u64 = 16 * 1024;

/// Shortest time that a version of a campaign stays on the topic, so that the projection sees it (rule J4).
const MIN_COMPACTION_LAG_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// A topic as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actual {
    /// Partitions.
    pub partitions: i32,
    /// All settings, defaults too.
    pub config: BTreeMap<String, String>,
}

/// What is done about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not there and will be created.
    Create,
    /// It is there and good.
    Keep,
    /// It is there and is not changed, though it ought to be otherwise; the texts say how.
    Differs(Vec<String>),
}

/// A topic and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// As it ought to be; `partitions` is the number that counts here, not the file's.
    pub topic: Topic,
    /// Its name.
    pub name: String,
    /// Partitions it has, if it is there.
    pub actual_partitions: Option<i32>,
    /// What is done.
    pub verdict: Verdict,
}

/// Compares. The number of partitions of `events` is the one asked for, else the one it has, else that of the file;
/// the topics that follow `events` get as many.
pub fn plan(
    files: &[Topic],
    names: &Names,
    actual: &BTreeMap<Role, Actual>,
    asked_partitions: Option<i32>,
) -> Vec<Planned> {
    let given = asked_partitions.or(actual.get(&Role::Events).map(|events| events.partitions));
    let wanted: Vec<(&String, Topic)> =
        names.iter().filter_map(|(role, name)| Some((name, wanted(files, *role, given)?))).collect();
    let wrong = {
        // Judged as if everything missing had been created as wanted.
        let mut after = actual.clone();
        for (_, topic) in &wanted {
            after
                .entry(topic.role)
                .or_insert_with(|| Actual { partitions: topic.partitions, config: topic.config.clone() });
        }
        violations(names, &after)
    };
    let row = |(name, topic): (&String, Topic)| {
        let found = actual.get(&topic.role);
        let verdict = found.map_or(Verdict::Create, |found| judge(&topic, found, &wrong));
        Planned { name: name.clone(), actual_partitions: found.map(|found| found.partitions), verdict, topic }
    };
    wanted.into_iter().map(row).collect()
}

/// What is said of a topic that is there.
fn judge(wanted: &Topic, found: &Actual, wrong: &[Violation]) -> Verdict {
    let mut differences: Vec<String> = Vec::new();
    if wanted.role == Role::Events && found.partitions != wanted.partitions {
        differences.push(format!(
            "has {} partitions and not the {} asked for; more partitions move users, so this is not done here",
            found.partitions, wanted.partitions
        ));
    }
    differences
        .extend(wrong.iter().filter(|violation| violation.role == wanted.role).map(|v| v.text.clone()));
    if differences.is_empty() { Verdict::Keep } else { Verdict::Differs(differences) }
}

/// The topic as it ought to be: as its file says, or that of the next lower tier, with the partitions that count.
fn wanted(files: &[Topic], role: Role, given: Option<i32>) -> Option<Topic> {
    let serves = |topic: &&Topic| match (topic.role, role) {
        (Role::Retry(tier), Role::Retry(asked)) => tier <= asked,
        (of_file, asked) => of_file == asked,
    };
    let file = files.iter().filter(serves).max_by_key(|topic| topic.role)?;
    Some(Topic { role, partitions: partitions(file, given), ..file.clone() })
}

fn partitions(topic: &Topic, given: Option<i32>) -> i32 {
    match (topic.role, given) {
        (Role::Campaigns, _) | (_, None) => topic.partitions,
        (_, Some(given)) => given,
    }
}

/// A rule that a topic breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which topic.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// What is wrong and what it must be.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "topic {} {}", self.name, self.text)
    }
}

/// What the processor cannot work with; empty when all is well.
pub fn violations(names: &Names, actual: &BTreeMap<Role, Actual>) -> Vec<Violation> {
    let mut found = Vec::new();
    let events = actual.get(&Role::Events);
    let events_name = names.get(&Role::Events).map_or("events", String::as_str);
    for (role, name) in names {
        let role = *role;
        let mut refuse = |role: Role, text: String| found.push(Violation { role, name: name.clone(), text });
        let Some(topic) = actual.get(&role) else {
            refuse(role, "does not exist; `campaignd topology apply` creates it".into());
            continue;
        };
        let compacted = topic.text("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
        if role == Role::Campaigns {
            if topic.partitions != 1 {
                refuse(
                    role,
                    format!(
                        "has {} partitions; it must have 1, so that one offset names the state of all campaigns",
                        topic.partitions
                    ),
                );
            }
            if topic.text("cleanup.policy").is_some_and(|policy| policy != "compact") {
                refuse(role, "must have cleanup.policy=compact, or campaigns expire".into());
            }
            if topic.number("min.compaction.lag.ms").is_some_and(|lag| lag < MIN_COMPACTION_LAG_MS) {
                refuse(
                    role,
                    format!(
                        "must have min.compaction.lag.ms of at least {MIN_COMPACTION_LAG_MS} (7 days), so that the audit trail sees every version"
                    ),
                );
            }
            continue;
        }
        if compacted {
            refuse(role, "must not be compacted: records of one user are not versions of each other".into());
        }
        let Some(events) = events else { continue };
        if topic.partitions < events.partitions {
            refuse(
                role,
                format!(
                    "has {} partitions; it must have at least {}, as many as {}",
                    topic.partitions, events.partitions, events_name
                ),
            );
        }
        if matches!(role, Role::Retry(_)) {
            for setting in ["retention.ms", "retention.bytes"] {
                if topic.text(setting).is_some_and(|value| value != "-1") {
                    refuse(role, format!("must have {setting}=-1, or records are deleted that still wait"));
                }
            }
        }
        if matches!(role, Role::Dlq | Role::Retry(_))
            && let (Some(limit), Some(events)) =
                (topic.number("max.message.bytes"), events.number("max.message.bytes"))
            && limit < events + HEADER_BYTES
        {
            refuse(
                role,
                format!(
                    "must have max.message.bytes of at least {} (that of {} and {HEADER_BYTES} for headers), or the largest records cannot be put aside",
                    events + HEADER_BYTES,
                    events_name
                ),
            );
        }
    }
    found
}

impl Actual {
    fn text(&self, setting: &str) -> Option<&str> {
        self.config.get(setting).map(String::as_str)
    }

    fn number(&self, setting: &str) -> Option<u64> {
        self.text(setting)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::built_in;

    fn names() -> Names {
        crate::topology::names(&crate::config::Config::default())
    }

    fn all_there(partitions: i32) -> BTreeMap<Role, Actual> {
        let actual = |topic: Topic| {
            let partitions = if topic.role == Role::Campaigns { 1 } else { partitions };
            (topic.role, Actual { partitions, config: topic.config })
        };
        built_in().unwrap().into_iter().map(actual).collect()
    }

    fn planned(actual: &BTreeMap<Role, Actual>, asked: Option<i32>) -> BTreeMap<Role, Planned> {
        let rows = plan(&built_in().unwrap(), &names(), actual, asked);
        rows.into_iter().map(|row| (row.topic.role, row)).collect()
    }

    #[test]
    fn what_is_missing_is_created_with_the_partitions_asked_for_and_campaigns_with_one() {
        for (role, row) in planned(&BTreeMap::new(), Some(6)) {
            assert_eq!(row.verdict, Verdict::Create);
            assert_eq!(row.topic.partitions, if role == Role::Campaigns { 1 } else { 6 });
        }
        assert_eq!(planned(&BTreeMap::new(), None)[&Role::Dlq].topic.partitions, 12);
    }

    #[test]
    fn a_second_run_keeps_everything_whatever_the_first_was_asked_for() {
        for asked in [None, Some(6)] {
            assert!(planned(&all_there(6), asked).values().all(|row| row.verdict == Verdict::Keep));
        }
    }

    #[test]
    fn missing_topics_follow_the_events_topic_that_is_there() {
        let mut actual = all_there(6);
        actual.remove(&Role::Decisions);
        let rows = planned(&actual, None);
        assert_eq!(rows[&Role::Decisions].verdict, Verdict::Create);
        assert_eq!(rows[&Role::Decisions].topic.partitions, 6);
    }

    #[test]
    fn there_are_as_many_retry_topics_as_delays_with_files_or_without() {
        let mut config = crate::config::Config::default();
        for count in [1, 6] {
            config.retry.delays_ms = (1..=count).collect();
            let rows =
                plan(&built_in().unwrap(), &crate::topology::names(&config), &BTreeMap::new(), Some(3));
            let retry: Vec<&Planned> =
                rows.iter().filter(|row| matches!(row.topic.role, Role::Retry(_))).collect();
            let expected: Vec<String> = (1..=count).map(|tier| format!("events.retry.{tier}")).collect();
            assert_eq!(retry.iter().map(|row| row.name.clone()).collect::<Vec<_>>(), expected);
            assert!(
                retry.iter().all(|row| row.topic.config["retention.ms"] == "-1" && row.topic.partitions == 3)
            );
        }
    }

    #[test]
    fn other_partition_counts_are_reported_and_more_than_needed_is_fine() {
        let rows = planned(&all_there(6), Some(12));
        assert!(
            matches!(&rows[&Role::Events].verdict, Verdict::Differs(texts) if texts[0].contains("not the 12 asked for"))
        );
        let mut actual = all_there(6);
        actual.get_mut(&Role::Dlq).unwrap().partitions = 3;
        actual.get_mut(&Role::Activity).unwrap().partitions = 24;
        let rows = planned(&actual, None);
        assert!(
            matches!(&rows[&Role::Dlq].verdict, Verdict::Differs(texts) if texts[0].contains("at least 6"))
        );
        assert_eq!(rows[&Role::Activity].verdict, Verdict::Keep);
    }

    #[track_caller]
    fn violation_after(role: Role, setting: &str, value: &str) -> String {
        let mut actual = all_there(6);
        actual.get_mut(&role).unwrap().config.insert(setting.into(), value.into());
        let found = violations(&names(), &actual);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].role, role);
        found[0].to_string()
    }

    #[test]
    fn settings_that_would_lose_records_are_violations() {
        assert_eq!(violations(&names(), &all_there(6)), []);
        assert!(violation_after(Role::Campaigns, "cleanup.policy", "delete").contains("compact"));
        assert!(violation_after(Role::Campaigns, "min.compaction.lag.ms", "0").contains("7 days"));
        assert!(violation_after(Role::Decisions, "cleanup.policy", "compact").contains("not be compacted"));
        assert!(
            violation_after(Role::Events, "cleanup.policy", "compact,delete").contains("not be compacted")
        );
        assert!(violation_after(Role::Dlq, "max.message.bytes", "1048588").contains("max.message.bytes"));
        assert!(violation_after(Role::Retry(2), "max.message.bytes", "1048588").contains("1064972"));
        assert!(violation_after(Role::Retry(1), "retention.ms", "604800000").contains("retention.ms=-1"));
        assert!(violation_after(Role::Retry(4), "retention.bytes", "1000").contains("that still wait"));
    }

    #[test]
    fn missing_topics_and_more_than_one_campaigns_partition_are_violations() {
        assert_eq!(violations(&names(), &BTreeMap::new()).len(), 9);
        let mut actual = all_there(6);
        actual.get_mut(&Role::Campaigns).unwrap().partitions = 2;
        assert_eq!(violations(&names(), &actual).len(), 1);
    }
}
