//! The consumer group: its coordinator with generations, sessions and rebalances, and the thread of each member.
//!
//! The classic protocol, eager, range: at a rebalance everybody gives back everything and joins again. Until all have
//! joined the old generation still commits; from then on it is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use campaignd::pipeline::log::{LogError, Signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::faults::Hop;
use crate::instance::{Control, SESSION_TIMEOUT, Side};
use crate::log::{Shared, broker_trip};
use crate::world::{World, lock};

const HEARTBEAT: Duration = Duration::from_millis(1_500);
/// Members that have not joined again after so long are out.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a revocation or a shutdown may drain: the setting of the processor.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(1_200);

/// Who a member is: what its commits carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub member: u64,
    pub generation: u64,
    /// Retry topics that were assigned with the partitions (rule O8).
    pub tiers: u8,
}

/// Why the coordinator refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    UnknownMember,
    IllegalGeneration,
    RebalanceInProgress,
    /// Another member has joined under the same static id.
    FencedInstance,
}

#[derive(Clone, Debug)]
struct Assignment {
    membership: Membership,
    partitions: Vec<i32>,
}

struct Member {
    instance: String,
    last_seen: Instant,
    /// Waits for the rebalance to complete.
    joining: Option<oneshot::Sender<Assignment>>,
    partitions: Vec<i32>,
}

/// The group as its coordinator knows it.
#[derive(Default)]
pub struct Group {
    generation: u64,
    rebalancing: bool,
    next_member: u64,
    members: BTreeMap<u64, Member>,
    /// Static members that were replaced under their instance id.
    fenced: Vec<u64>,
}

impl Group {
    /// Whether a commit with this membership is taken. A rebalance that has not completed yet refuses nothing.
    pub fn check(&self, membership: &Membership) -> Result<(), Refusal> {
        if self.fenced.contains(&membership.member) {
            return Err(Refusal::FencedInstance);
        }
        if !self.members.contains_key(&membership.member) {
            return Err(Refusal::UnknownMember);
        }
        if self.generation == membership.generation { Ok(()) } else { Err(Refusal::IllegalGeneration) }
    }

    fn heartbeat(&mut self, membership: &Membership) -> Result<(), Refusal> {
        self.check(membership)?;
        if let Some(member) = self.members.get_mut(&membership.member) {
            member.last_seen = Instant::now();
        }
        if self.rebalancing { Err(Refusal::RebalanceInProgress) } else { Ok(()) }
    }

    fn begin_rebalance(&mut self, world: &Arc<World>) {
        if self.rebalancing || self.members.is_empty() {
            return;
        }
        self.rebalancing = true;
        let (generation, world) = (self.generation, Arc::clone(world));
        tokio::spawn(async move {
            tokio::time::sleep(REBALANCE_TIMEOUT).await;
            let mut broker = world.broker();
            if broker.group.rebalancing && broker.group.generation == generation {
                broker.group.members.retain(|_, member| member.joining.is_some());
                drop(broker);
                settle(&world, false);
            }
        });
    }

    fn complete_if_all_joined(&mut self, partition_count: i32, tiers: u8) -> bool {
        if !self.rebalancing || self.members.values().any(|member| member.joining.is_none()) {
            return false;
        }
        self.generation += 1;
        self.rebalancing = false;
        let members = i32::try_from(self.members.len()).expect("few members");
        if members == 0 {
            return false;
        }
        let (each, more) = (partition_count / members, partition_count % members);
        let mut next = 0;
        for (place, (id, member)) in (0..).zip(&mut self.members) {
            let share = each + i32::from(place < more);
            member.partitions = (next..next + share).collect();
            next += share;
            member.last_seen = Instant::now();
            if let Some(answer) = member.joining.take() {
                let membership = Membership { member: *id, generation: self.generation, tiers };
                let _ = answer.send(Assignment { membership, partitions: member.partitions.clone() });
            }
        }
        true
    }

    /// A member joins, or joins again under its id.
    fn join(
        &mut self,
        world: &Arc<World>,
        id: Option<u64>,
        instance: &str,
        tiers: u8,
        answer: oneshot::Sender<Assignment>,
    ) -> u64 {
        let now = Instant::now();
        let known = id.filter(|id| self.members.contains_key(id));
        let id = known.unwrap_or_else(|| {
            self.next_member += 1;
            self.next_member
        });
        if known.is_none() && world.plan.static_members {
            let old = self.members.iter().find(|(_, m)| m.instance == instance).map(|(id, _)| *id);
            if let Some(old) = old.and_then(|old| self.members.remove(&old).map(|member| (old, member))) {
                let (old, member) = old;
                self.fenced.push(old);
                if !self.rebalancing {
                    // A static member that is back in time gets what it had, in the same generation.
                    let membership = Membership { member: id, generation: self.generation, tiers };
                    let partitions = member.partitions.clone();
                    self.members.insert(id, Member { last_seen: now, joining: None, ..member });
                    world.count("static members back in time");
                    let _ = answer.send(Assignment { membership, partitions });
                    return id;
                }
            }
        }
        let member = Member {
            instance: instance.to_owned(),
            last_seen: now,
            joining: Some(answer),
            partitions: Vec::new(),
        };
        self.members.insert(id, member);
        self.begin_rebalance(world);
        id
    }

    fn leave(&mut self, id: u64) {
        self.members.remove(&id);
    }

    /// Members that were silent for too long are out. True when one was.
    fn expire(&mut self) -> bool {
        let before = self.members.len();
        self.members
            .retain(|_, member| member.joining.is_some() || member.last_seen.elapsed() < SESSION_TIMEOUT);
        self.members.len() != before
    }
}

/// Something about the members has changed: rebalance, or complete the one under way.
fn settle(world: &Arc<World>, changed: bool) {
    let mut broker = world.broker();
    if changed {
        broker.group.begin_rebalance(world);
    }
    let (partitions, tiers) = (broker.partition_count, broker.tiers);
    let completed = broker.group.complete_if_all_joined(partitions, tiers);
    drop(broker);
    if completed {
        world.count("rebalances");
    }
}

/// Rebalances for no reason the members know of.
pub fn shake(world: &Arc<World>) {
    settle(world, true);
}

/// Looks after the sessions; runs as long as the world.
pub async fn watch_sessions(world: Arc<World>) {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        // While the broker is away it counts nobody's silence.
        if world.broker_back() > Instant::now() {
            let mut broker = world.broker();
            broker.group.members.values_mut().for_each(|member| member.last_seen = Instant::now());
            continue;
        }
        let expired = world.broker().group.expire();
        if expired {
            world.count("expelled members");
        }
        settle(&world, expired);
    }
}

/// What the processor tells the member's thread.
pub enum Command {
    /// Leave and join again.
    Rejoin,
    /// Leave for good.
    Leave(oneshot::Sender<()>),
}

/// Why a member stops reading.
enum Cause {
    Rebalance,
    Lost,
    Fenced,
    Rejoin,
    Leave(oneshot::Sender<()>),
}

/// The thread of a member: joins, beats, gives back, joins again.
pub async fn member(control: Arc<Control>, shared: Arc<Shared>, mut commands: mpsc::Receiver<Command>) {
    let instance = format!("instance-{}", control.slot);
    let mut id = None;
    loop {
        let Some(assignment) = join(&control, &mut id, &instance).await else { continue };
        let Assignment { membership, partitions } = assignment;
        control.world.say(format_args!("{control} is given {partitions:?} in {membership:?}"));
        *lock(&shared.membership) = Some(membership.clone());
        shared.send(Signal::Assigned { partitions, tiers: membership.tiers });
        let cause = beat(&control, &membership, &mut commands).await;
        if let Cause::Fenced = cause {
            control.world.count("fenced static members");
            let text = "another process joined the group with this group.instance_id";
            shared.send(Signal::Fatal(LogError::Refused(text.into())));
            // The client is dead from here on.
            if let Some(Command::Leave(done)) = commands.recv().await {
                let _ = done.send(());
            }
            return;
        }
        give_back(&control, &shared, &membership, matches!(cause, Cause::Lost)).await;
        *lock(&shared.membership) = None;
        match cause {
            Cause::Rebalance | Cause::Fenced => {}
            Cause::Lost => id = None,
            Cause::Rejoin => leave(&control, &mut id).await,
            Cause::Leave(done) => {
                leave(&control, &mut id).await;
                let _ = done.send(());
                return;
            }
        }
    }
}

async fn join(control: &Arc<Control>, id: &mut Option<u64>, instance: &str) -> Option<Assignment> {
    let (answer, mut answered) = oneshot::channel();
    let (asked, instance) = (*id, instance.to_owned());
    let trip = broker_trip(&control.world, 0.0);
    let joining = Arc::clone(control);
    let joined = control
        .call(Side::Client, Hop::Join, trip, move |world| {
            // A connection ends with its process: what waited in it for the end of an outage does not throw the next
            // process out.
            if joining.is_dead() || joining.is_replaced() {
                return 0;
            }
            let mut broker = world.broker();
            let tiers = broker.tiers;
            let id = broker.group.join(world, asked, &instance, tiers, answer);
            drop(broker);
            settle(world, false);
            id
        })
        .await?;
    *id = Some(joined);
    let assignment = (&mut answered).await;
    control.gate(Side::Client).await;
    match assignment {
        Ok(assignment) => {
            tokio::time::sleep(control.world.draw_ms(0..5)).await;
            control.gate(Side::Client).await;
            Some(assignment)
        }
        // Thrown out while joining.
        Err(_) => {
            *id = None;
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Beats until something ends the membership.
async fn beat(
    control: &Arc<Control>,
    membership: &Membership,
    commands: &mut mpsc::Receiver<Command>,
) -> Cause {
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => {
                control.gate(Side::Client).await;
                match command {
                    Some(Command::Rejoin) => return Cause::Rejoin,
                    Some(Command::Leave(done)) => return Cause::Leave(done),
                    // The processor has ended without a word; the process ends with it.
                    None => std::future::pending().await,
                }
            }
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
        match heartbeat(control, membership).await {
            Ok(()) => {}
            Err(Refusal::RebalanceInProgress) => return Cause::Rebalance,
            Err(Refusal::FencedInstance) => return Cause::Fenced,
            Err(Refusal::UnknownMember | Refusal::IllegalGeneration) => return Cause::Lost,
        }
    }
}

async fn heartbeat(control: &Arc<Control>, membership: &Membership) -> Result<(), Refusal> {
    let asked = membership.clone();
    let mut trip = broker_trip(&control.world, 0.0);
    if control.world.strikes(control.world.plan.rates.late_heartbeats) {
        trip.back += control.world.draw_ms(0..3_000);
    }
    let beat = move |world: &Arc<World>| world.broker().group.heartbeat(&asked);
    control.call(Side::Client, Hop::Heartbeat, trip, beat).await.unwrap_or(Ok(()))
}

async fn leave(control: &Arc<Control>, id: &mut Option<u64>) {
    let Some(leaving) = id.take() else { return };
    let trip = broker_trip(&control.world, 0.0);
    let left = move |world: &Arc<World>| {
        world.broker().group.leave(leaving);
        settle(world, true);
    };
    let _ = control.call(Side::Client, Hop::Join, trip, left).await;
}

/// The callback of a revocation: waits for the processor, but not for ever, and beats meanwhile.
async fn give_back(control: &Arc<Control>, shared: &Arc<Shared>, membership: &Membership, lost: bool) {
    let (done, mut waiting) = oneshot::channel();
    shared.send(Signal::Revoked { lost, done });
    let deadline = Instant::now() + DRAIN_TIMEOUT * 3;
    loop {
        tokio::select! {
            biased;
            answer = &mut waiting => {
                if answer.is_ok() {
                    lock(&control.witness).given_back = Some(membership.clone());
                }
                break;
            }
            () = tokio::time::sleep_until(deadline) => {
                control.world.count("revocations that nobody answered in time");
                break;
            }
            () = tokio::time::sleep(HEARTBEAT) => {
                control.gate(Side::Client).await;
                if !lost {
                    let _ = heartbeat(control, membership).await;
                }
            }
        }
    }
    control.gate(Side::Client).await;
}
