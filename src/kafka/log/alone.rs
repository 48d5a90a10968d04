//! That no other instance is in the group: a store in a folder serves one.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::time::Instant;

use super::LogSettings;
use crate::pipeline::log::LogError;

/// One question to the broker.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(250);
/// A dead member's session may end a little late.
const SLACK: Duration = Duration::from_secs(3);
/// Letters of the UUID and its hyphen that the broker puts behind a member's name.
const MEMBER_SUFFIX: usize = 37;

/// What a member is told that is not alone.
pub(super) const NOT_ALONE: &str = "the embedded store serves one instance, and another one is in the consumer group; stop it, give this one another \
     group.id, or share a database (store.kind = \"scylla\")";

/// Waits until nobody else is in the group. A member that was killed stays in it until its session ends, so that is
/// waited for; the same instance come back is not somebody else.
///
/// # Errors
///
/// [`LogError::Refused`] when there is another member after that time.
pub async fn wait_until_alone(settings: &LogSettings) -> Result<(), LogError> {
    let us = settings.static_membership.then_some(settings.instance_id.as_str());
    let deadline = Instant::now() + settings.session_timeout + SLACK;
    let mut is_said = false;
    loop {
        let asking = settings.clone();
        let members = tokio::task::spawn_blocking(move || members(&asking))
            .await
            .map_err(|e| LogError::Unavailable(e.to_string()))?;
        let others = match members {
            Ok(members) => others(members, us),
            Err(error) => {
                // The assignment will tell: alone, this instance gets every partition.
                tracing::warn!("the members of the group {} are not known: {error}", settings.group_id);
                return Ok(());
            }
        };
        match others.first() {
            None => return Ok(()),
            Some(other) if Instant::now() > deadline => {
                return Err(LogError::Refused(format!("{NOT_ALONE}: {other} in {}", settings.group_id)));
            }
            Some(other) if !is_said => {
                is_said = true;
                tracing::info!("waiting for {other} to leave the group {}", settings.group_id);
            }
            Some(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ids of the members of the group. Blocks.
fn members(settings: &LogSettings) -> Result<Vec<String>, KafkaError> {
    let client: BaseConsumer = settings.client.clone().set("group.id", &settings.group_id).create()?;
    let list = client.fetch_group_list(Some(&settings.group_id), CALL_TIMEOUT)?;
    let ours = list.groups().iter().filter(|group| group.name() == settings.group_id);
    Ok(ours.flat_map(|group| group.members()).map(|member| member.id().to_owned()).collect())
}

/// Members that are not this instance. The broker names a static member after its instance id.
fn others(members: Vec<String>, instance_id: Option<&str>) -> Vec<String> {
    let is_us = |member: &String| {
        let suffix = instance_id.and_then(|instance_id| member.strip_prefix(instance_id));
        suffix.is_some_and(|suffix| suffix.len() == MEMBER_SUFFIX && suffix.starts_with('-'))
    };
    members.into_iter().filter(|member| !is_us(member)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_static_member_of_the_same_instance_is_not_somebody_else() {
        let member = |name: &str| format!("{name}-e6cd0a19-4f7d-4aa0-8a4d-5b4b8a1c7a52");
        let members = || vec![member("a"), member("a-b"), member("campaignd")];
        assert_eq!(others(members(), Some("a")), [member("a-b"), member("campaignd")]);
        assert_eq!(others(members(), Some("b")), members());
        assert_eq!(
            others(members(), None),
            members(),
            "a member without instance id cannot be told from others"
        );
    }
}
