//! What must have come of everything: the sequential model against topics and cells, and rules that hold at every step.
//!
//! The model is told the events of each user in the order of the log, and nothing of how the code works. Where the design
//! leaves a choice (which campaigns were live, whether a record's attempts had run out, whether an erasure overtook), it
//! follows what was observed, as long as that was possible at the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use campaignd::decision::Decision;
use campaignd::event::Event;
use campaignd::partitioner::Partitioner;
use campaignd::pipeline::log::{Input, OutputRecord};
use campaignd::pipeline::outputs::header;
use campaignd::store::Cell;
use campaignd::user::codec;

use crate::campaigns::{CODEC, REMEMBERED};
use crate::compare::as_expected;
use crate::faults::Plan;
use crate::group::Membership;
use crate::instance::SESSION_TIMEOUT;
use crate::log::{Broker, Data, Topic};
use crate::model::{Expected, Model, Verdict};
use crate::registry::GOOD;
use crate::state::compare_state;
use crate::store::WRITE_TIMEOUT;
use crate::transactions::tier_of;
use crate::workload::{Nature, Placed, user_name};
use crate::world::{World, lock};

/// Retry records of one record for each failure that it waits for, at most: one a tick while its blocker waits in the tier
/// above, whose delay is ten ticks. Of 400 busy seeds the worst has 9; without rule P4 it is 20 to 40.
const MOST_ROTATIONS: f64 = 12.0;
/// The outputs of one event are smaller than this.
const ONE_EVENT_BYTES: usize = 6_000;

/// Rules about what goes into a transaction.
pub fn check_outputs(
    world: &World,
    membership: &Membership,
    records: &[OutputRecord],
    next_offsets: &BTreeMap<Input, i64>,
) {
    for record in records.iter().filter(|record| tier_of(record).is_some()) {
        let user = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        let is_unreadable = record.headers.iter().any(|h| h.value.as_deref() == Some(b"state_unavailable"));
        if is_unreadable && !lock(&world.unloadable).contains(&user) {
            world.violation(format_args!("{user} is parked for an outage of the whole store"));
        }
        lock(&world.ever_parked).insert(user);
    }
    for record in records.iter().filter(|_| world.is_verbose()) {
        world.say(format_args!("    {}", tell(record)));
    }
    let partitions: BTreeSet<i32> = next_offsets.keys().map(|input| input.partition).collect();
    for record in records {
        if !partitions.contains(&record.partition) {
            world.violation(format_args!("P10: {:?} goes to partition {}", record.topic, record.partition));
        }
        if tier_of(record).is_some_and(|tier| tier > membership.tiers) {
            world.violation(format_args!("O8: a record goes to {:?}, which is not assigned", record.topic));
        }
    }
}

/// An output in a line.
fn tell(record: &OutputRecord) -> String {
    let key = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let value = record.value.as_deref().unwrap_or_default();
    if let Ok(decision) = CODEC.decode_decision(value) {
        return format!("{key} {} {}:{:?}", decision.event_id, decision.campaign_id, decision.reason.code);
    }
    let headers = record.headers.iter().filter(|h| h.name.starts_with(header::PREFIX)).map(|h| {
        let name = h.name.trim_start_matches(header::PREFIX);
        format!("{name}={}", h.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default())
    });
    format!("{key} {:?} {}", record.topic, headers.collect::<Vec<_>>().join(" "))
}

/// Rules about the timestamps of writes.
pub fn check_writes(world: &World, process: u64, cells: &[Cell]) {
    for cell in cells.iter().filter(|_| world.is_verbose()) {
        let Ok(state) = codec::decode(&cell.bytes) else { continue };
        let outbox: Vec<_> = state.outbox().entries().map(|entry| entry.position.offset).collect();
        world.say(format_args!(
            "    process {process} writes {} at {}: applied {:?}, newest {:?}, outbox {outbox:?}",
            cell.user_id,
            cell.timestamp_us,
            state.applied().map(|at| at.offset),
            state.newest_event_ms()
        ));
    }
    let tables = world.tables();
    let mut wrong = Vec::new();
    for cell in cells {
        let home = Partitioner::Murmur2.partition(cell.user_id.as_bytes(), world.plan.partitions);
        let is_under_own_fence = tables.taken.iter().any(|taken| {
            taken.partition == home
                && taken.process == process
                && (taken.fence_us..taken.fence_us + 1_000_000).contains(&cell.timestamp_us)
        });
        if !is_under_own_fence {
            wrong.push(format!("F2: process {process} writes {} under no fence of its own", cell.user_id));
        }
    }
    drop(tables);
    wrong.iter().for_each(|wrong| world.violation(wrong));
}

/// Rules about a cell that has just come to stand.
pub fn check_cell(world: &World, process: u64, cell: &Cell) {
    let mut books = world.books();
    let figures = &mut books.figures;
    figures.largest_cell_bytes = figures.largest_cell_bytes.max(cell.bytes.len());
    drop(books);
    match codec::decode(&cell.bytes) {
        Ok(state) => {
            let bytes = state.outbox().bytes();
            if bytes > 2 * (world.plan.max_outbox_bytes + ONE_EVENT_BYTES) {
                world.violation(format_args!("S9: the outbox of {} has {bytes} bytes", cell.user_id));
            }
        }
        Err(error) => world.violation(format_args!("the cell of {} does not decode: {error}", cell.user_id)),
    }
    let home = Partitioner::Murmur2.partition(cell.user_id.as_bytes(), world.plan.partitions);
    let tables = world.tables();
    let newest =
        tables.taken.iter().filter(|taken| taken.partition == home).max_by_key(|taken| taken.fence_us);
    let is_zombie =
        newest.is_some_and(|newest| newest.process != process && cell.timestamp_us < newest.fence_us);
    let is_late = newest.is_some_and(|newest| world.elapsed() > newest.at + SESSION_TIMEOUT + WRITE_TIMEOUT);
    drop(tables);
    if is_zombie {
        world.count("cells of zombies that came to stand");
        if is_late {
            // The known rest of rule K2: what the new owner skipped may be in it.
            world.count("cells of zombies after the later watermark");
            lock(&world.late_zombie_cells).insert(cell.user_id.clone());
        }
    }
}

/// Rules about how much waits (rule P8).
pub fn check_bounds(world: &World) {
    let plan = &world.plan;
    let broker = world.broker();
    let mut most = 0;
    for partition in 0..plan.partitions {
        let waiting: usize = (1..=broker.tiers)
            .map(|tier| {
                let next = broker.committed.get(&Input::retry(tier, partition)).copied().unwrap_or(0);
                broker.partition(Topic::Retry(tier), partition).committed_from(next).count()
            })
            .sum();
        most = most.max(waiting);
    }
    drop(broker);
    // Two batches are in flight when the bound is met, and a record that moves is seen twice between two markers.
    let bound = plan.max_pending + 4 * plan.batch_records + 10;
    if most > bound {
        world.violation(format_args!("P8: {most} records wait of one partition, {bound} may"));
    }
}

/// One copy of a record on a retry topic.
struct Copy<'a> {
    data: &'a Data,
    consumed: Option<Duration>,
}

/// Everything that was published, sorted by what it is about.
struct Published<'a> {
    decisions: BTreeMap<String, Vec<Decision>>,
    dead_letters: BTreeMap<(String, i32, i64), Vec<&'a Data>>,
    copies: BTreeMap<(i32, i64), Vec<Copy<'a>>>,
    problems: Vec<String>,
}

impl<'a> Published<'a> {
    fn read(world: &World, broker: &'a Broker) -> Published<'a> {
        let mut published = Published {
            decisions: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            copies: BTreeMap::new(),
            problems: Vec::new(),
        };
        for (partition, log) in broker.partitions_of(Topic::Decisions) {
            for (offset, data) in log.all_committed() {
                published.decision(world, partition, offset, data);
            }
        }
        for (partition, log) in broker.partitions_of(Topic::DeadLetters) {
            for (_, data) in log.all_committed() {
                let Some((topic, from, offset)) = origin(data) else {
                    published.problems.push(format!("a dead letter says not where it is from: {data:?}"));
                    continue;
                };
                if from != partition {
                    published.problems.push(format!("P10: a dead letter of {from} lies on {partition}"));
                }
                published.dead_letters.entry((topic.to_owned(), from, offset)).or_default().push(data);
            }
        }
        let forged = lock(&world.forged).clone();
        for tier in 1..=u8::try_from(world.plan.tiers_ms.len()).expect("few tiers") {
            for (partition, log) in broker.partitions_of(Topic::Retry(tier)) {
                for (offset, data) in log.all_committed() {
                    if !forged.contains(&(tier, partition, offset)) {
                        let consumed = broker.consumed_at(Input::retry(tier, partition), offset);
                        published.copy(partition, data, consumed);
                    }
                }
            }
        }
        published
    }

    fn decision(&mut self, world: &World, partition: i32, offset: i64, data: &Data) {
        let value = data.value.as_deref().unwrap_or_default();
        let decision = match CODEC.decode_decision(value) {
            Ok(decision) => decision,
            Err(error) => return self.problems.push(format!("decisions[{partition}]@{offset}: {error}")),
        };
        let home = Partitioner::Murmur2.partition(decision.user_id.as_bytes(), world.plan.partitions);
        if home != partition || data.key.as_deref() != Some(decision.user_id.as_bytes()) {
            self.problems.push(format!("J5: decisions[{partition}]@{offset} is of {}", decision.user_id));
        }
        if data.header(header::OUTCOME) != Some(decision.outcome.as_str()) {
            self.problems.push(format!("decisions[{partition}]@{offset} has another outcome in its header"));
        }
        self.decisions.entry(decision.user_id.clone()).or_default().push(decision);
    }

    fn copy(&mut self, partition: i32, data: &'a Data, consumed: Option<Duration>) {
        match origin(data) {
            Some(("events", from, offset)) if from == partition => {
                self.copies.entry((from, offset)).or_default().push(Copy { data, consumed });
            }
            _ => self.problems.push(format!("P10: a retry record on {partition} says {:?}", data.headers)),
        }
    }
}

fn number<T: std::str::FromStr>(data: &Data, name: &str) -> Option<T> {
    data.header(name)?.parse().ok()
}

fn origin(data: &Data) -> Option<(&str, i32, i64)> {
    let topic = data.header(header::ORIGINAL_TOPIC)?;
    Some((topic, number(data, header::ORIGINAL_PARTITION)?, number(data, header::ORIGINAL_OFFSET)?))
}

/// An event as the pipeline's types have it, as far as its id goes.
pub fn as_event(json: &serde_json::Value) -> Event {
    Event {
        event_id: json["event_id"].as_str().unwrap_or_default().to_owned(),
        user_id: String::new(),
        event_type: String::new(),
        occurred_at_ms: 0,
        properties: BTreeMap::new(),
        traits: BTreeMap::new(),
        trace_id: None,
    }
}

/// Judges a run that has come to its end.
pub fn judge(world: &World) {
    let broker = world.broker();
    let mut published = Published::read(world, &broker);
    let mut problems = std::mem::take(&mut published.problems);
    let placed = lock(&world.placed).clone();
    let failures = published.failures();
    for record in &placed {
        check_rotation(world, record, &published, &failures);
        let copies = published.copies.get(&(record.partition, record.offset)).map_or(&[][..], Vec::as_slice);
        check_copies(world, record, copies, &mut problems);
    }
    for (tier, partition, offset) in lock(&world.forged).iter().copied() {
        let found = published.dead_letters.remove(&(format!("events.retry.{tier}"), partition, offset));
        let codes: Vec<_> = found.iter().flatten().map(|data| data.header(header::ERROR_CODE)).collect();
        if codes != [Some("bad_retry_record")] {
            problems.push(format!("the forged record {tier}[{partition}]@{offset} ended as {codes:?}"));
        }
    }
    for number in 0..world.plan.users {
        let user = user_name(number);
        let mut judge = Judge::of(world, &broker, &user, &mut published);
        judge.records(&placed);
        judge.finish();
        let is_rest = lock(&world.late_zombie_cells).contains(&user);
        if is_rest && !judge.problems.is_empty() {
            world.count("users spoilt by the known rest of K2");
        } else {
            problems.append(&mut judge.problems);
        }
    }
    for record in placed.iter().filter(|record| owner(world, record).is_none()) {
        let Nature::Poison(code) = record.nature else { continue };
        if let Err(problem) = exactly_one(record, &published.take_dead(record), &[code]) {
            problems.push(problem);
        }
    }
    for (topic, partition, offset) in published.dead_letters.keys() {
        problems.push(format!("an unexpected dead letter of {topic}[{partition}]@{offset}"));
    }
    drop(published);
    drop(broker);
    problems.iter().for_each(|problem| world.violation(problem));
}

/// The user of a record; `None` where the key is no user's or the partition is another's.
fn owner(world: &World, record: &Placed) -> Option<String> {
    let key = record.data.key.as_deref()?;
    let home = Partitioner::Murmur2.partition(key, world.plan.partitions);
    let user = String::from_utf8(key.to_vec()).ok()?;
    (home == record.partition).then_some(user)
}

/// Rules about what was written to retry topics for one record.
fn check_copies(world: &World, record: &Placed, copies: &[Copy<'_>], problems: &mut Vec<String>) {
    let (Some(first), Some(last)) =
        (copies.iter().min_by_key(|c| c.data.timestamp_ms), copies.iter().max_by_key(|c| c.consumed))
    else {
        return;
    };
    let place = format!("events[{}]@{}", record.partition, record.offset);
    let own = |data: &Data| -> Vec<_> {
        data.headers.iter().filter(|h| !h.name.starts_with(header::PREFIX)).cloned().collect()
    };
    let mut failures = 0;
    for copy in copies {
        if copy.data.value != record.data.value
            || copy.data.key != record.data.key
            || own(copy.data) != own(&record.data)
        {
            problems.push(format!("a retry record of {place} is not what was read"));
        }
        if copy.consumed.is_none() {
            problems.push(format!("a retry record of {place} was never consumed"));
        }
        failures +=
            u32::from(copy.data.header(header::ERROR_CODE).is_some_and(|code| code == "unknown_schema"));
    }
    let attempts = copies.iter().filter_map(|copy| number::<u32>(copy.data, header::ATTEMPT)).max();
    if attempts.is_some_and(|attempts| attempts > failures || attempts >= world.plan.max_attempts) {
        problems.push(format!("P3: {place} has used up {attempts:?} attempts and failed {failures} times"));
    }
    let mut books = world.books();
    books.figures.rewrites.push(u32::try_from(copies.len()).expect("few copies"));
    let parked_ms = u64::try_from(first.data.timestamp_ms - crate::world::NOON_MS).unwrap_or(0);
    if let Some(consumed) = last.consumed {
        let consumed_ms = u64::try_from(consumed.as_millis()).expect("short");
        books.figures.unpark_ms.push(consumed_ms.saturating_sub(parked_ms));
    }
    books.count("parked records", 1);
    let code = first.data.header(header::ERROR_CODE).unwrap_or("blocked");
    books.count(&format!("parked records: {code}"), 1);
}

/// When a record of a user failed and went to a retry topic: offset and time, by key.
type Failures<'a> = BTreeMap<&'a [u8], Vec<(i64, i64)>>;

impl Published<'_> {
    fn failures(&self) -> Failures<'_> {
        let mut all = Failures::new();
        for ((_, offset), copies) in &self.copies {
            let mut known = 0;
            for copy in copies {
                let failed: u32 = number(copy.data, header::FAILURES).unwrap_or(0);
                if let (true, Some(key)) = (failed > known, copy.data.key.as_deref()) {
                    all.entry(key).or_default().push((*offset, copy.data.timestamp_ms));
                }
                known = known.max(failed);
            }
        }
        all
    }
}

/// A record that only waits is written again when what it waits for has failed again, and hardly ever else (rule P4).
fn check_rotation(world: &World, record: &Placed, published: &Published<'_>, failures: &Failures<'_>) {
    let Some(copies) = published.copies.get(&(record.partition, record.offset)) else { return };
    let times = copies.iter().map(|copy| copy.data.timestamp_ms);
    let (Some(first), Some(last), Some(key)) = (times.clone().min(), times.max(), record.data.key.as_deref())
    else {
        return;
    };
    let of_user = failures.get(key).map_or(&[][..], Vec::as_slice);
    let reasons =
        of_user.iter().filter(|(offset, at)| *offset <= record.offset && (first..=last).contains(at)).count();
    let rotations = copies.len() as f64 / (reasons + 1) as f64;
    // Whether anything of the user was failing when it was sent to wait.
    let is_failing = of_user.iter().any(|(offset, at)| {
        let consumed = published
            .copies
            .get(&(record.partition, *offset))
            .and_then(|c| c.iter().filter_map(|c| c.consumed).max());
        let until =
            consumed.map_or(i64::MAX, |c| crate::world::NOON_MS + i64::try_from(c.as_millis()).unwrap());
        *offset <= record.offset && *at <= first && first <= until
    });
    let mut books = world.books();
    if !is_failing {
        books.count("parked behind nothing that fails", 1);
    }
    books.figures.rotations.push(rotations);
    drop(books);
    if world.plan.is_busy && rotations > MOST_ROTATIONS {
        world.violation(format_args!(
            "P4: events[{}]@{} was written {} times for {reasons} failures",
            record.partition,
            record.offset,
            copies.len()
        ));
    }
}

/// Checks that a record is one dead letter, byte for byte, under one of the codes.
fn exactly_one(record: &Placed, found: &[&Data], codes: &[&str]) -> Result<(), String> {
    let place = format!("events[{}]@{}", record.partition, record.offset);
    let [dead] = found else {
        return Err(format!("{place} ended as {} dead letters, not as {codes:?}", found.len()));
    };
    let code = dead.header(header::ERROR_CODE).unwrap_or_default();
    if !codes.contains(&code) {
        return Err(format!("{place} is a dead letter for {code}, not for {codes:?}"));
    }
    if dead.value != record.data.value || dead.key != record.data.key {
        return Err(format!("the dead letter of {place} is not what was read"));
    }
    Ok(())
}

impl<'a> Published<'a> {
    fn take_dead(&mut self, record: &Placed) -> Vec<&'a Data> {
        self.dead_letters.remove(&("events".to_owned(), record.partition, record.offset)).unwrap_or_default()
    }
}

/// The judgement of one user.
struct Judge<'a, 'b> {
    world: &'a World,
    broker: &'a Broker,
    user: &'a str,
    published: &'a mut Published<'b>,
    decisions: Vec<Decision>,
    /// Decisions that have been accounted for.
    seen: usize,
    /// The newest set that has decided about the user.
    newest_set: usize,
    model: Model,
    /// Offset of the erasure whose mark the cell bears.
    erased_at: Option<i64>,
    /// An erasure that is yet to come has overtaken something: it counted, even if it were dropped in its turn.
    is_overtaken: bool,
    problems: Vec<String>,
}

impl<'a, 'b> Judge<'a, 'b> {
    fn of(world: &'a World, broker: &'a Broker, user: &'a str, published: &'a mut Published<'b>) -> Self {
        let decisions = published.decisions.remove(user).unwrap_or_default();
        let model = Model::new(&[]).remembering(&[REMEMBERED]);
        let tables = world.tables();
        let state = tables.cells.get(user).and_then(|cell| codec::decode(&cell.bytes).ok());
        let erased_at = state.and_then(|state| state.erasure()).map(|erasure| erasure.position.offset);
        drop(tables);
        let (seen, is_overtaken, problems) = (0, false, Vec::new());
        Judge {
            world,
            broker,
            user,
            published,
            decisions,
            seen,
            newest_set: 0,
            model,
            erased_at,
            is_overtaken,
            problems,
        }
    }

    fn records(&mut self, placed: &[Placed]) {
        let of_user: Vec<&Placed> =
            placed.iter().filter(|record| owner(self.world, record).as_deref() == Some(self.user)).collect();
        // A batch that came to nothing may have parked records as well; its erasure stands in the cell.
        let is_troubled =
            lock(&self.world.unloadable).contains(self.user) || of_user.iter().any(|r| has_new_schema(r));
        let last_erasure = of_user.iter().rposition(|record| is_erasure(record));
        for (place, record) in of_user.into_iter().enumerate() {
            let may_be_overtaken = last_erasure.is_some_and(|erasure| place < erasure)
                && (is_troubled || self.has_copies(record));
            if let Err(problem) = self.record(record, may_be_overtaken) {
                self.problems
                    .push(format!("{} events[{}]@{}: {problem}", self.user, record.partition, record.offset));
            }
        }
    }

    fn has_copies(&self, record: &Placed) -> bool {
        self.published.copies.contains_key(&(record.partition, record.offset))
    }

    /// Follows one record. `may_be_overtaken`: an erasure behind it may have come first, while it waited.
    fn record(&mut self, record: &Placed, may_be_overtaken: bool) -> Result<(), String> {
        let dead = self.published.take_dead(record);
        let (json, schema, near_future) = match &record.nature {
            Nature::Poison(_) if dead.is_empty() && may_be_overtaken => return Ok(()),
            Nature::Poison(code) => return exactly_one(record, &dead, &[code]),
            Nature::Event { json, schema, near_future } => (json, *schema, *near_future),
        };
        if !dead.is_empty() {
            let mut codes = Vec::new();
            if near_future {
                codes.push("future_event");
            }
            if schema != GOOD && self.may_have_run_out(record, schema) {
                codes.push("unknown_schema");
            }
            self.world.count("events that became dead letters");
            return exactly_one(record, &dead, &codes);
        }
        if is_erasure(record) && (self.is_overtaken || self.erased_at == Some(record.offset)) {
            self.is_overtaken = false;
            self.model.erase(self.user, json["occurred_at"].as_i64().unwrap_or(0));
            return Ok(());
        }
        let trace = json["trace_id"].as_str();
        let left = self.decisions[self.seen..].iter();
        let observed: Vec<Decision> =
            left.take_while(|decision| decision.trace_id.as_deref() == trace).cloned().collect();
        let sets: Vec<usize> = match observed.first() {
            Some(first) => vec![self.world.timeline.of_version(first.campaign_version)],
            None => self.world.timeline.within(record.at, self.handled(record)).collect(),
        };
        let is_one_set = observed
            .iter()
            .all(|decision| Some(&self.world.timeline.of_version(decision.campaign_version)) == sets.first());
        if !is_one_set {
            return Err("it was decided with two sets of campaigns".into());
        }
        if let (false, Some(set)) = (observed.is_empty(), sets.first()) {
            if *set < self.newest_set {
                let (newest, problem) = (self.newest_set, "O2: the campaigns went back");
                self.problems.push(format!("{}: {problem} from set {newest} to {set}", self.user));
            }
            self.newest_set = self.newest_set.max(*set);
        }
        let found: Vec<_> = observed.iter().map(as_expected).collect();
        let mut expected = None;
        for set in sets {
            let mut model = self.model.clone();
            model.replace_rules(&self.world.timeline.sets[set].rules);
            let verdict = model.handle(json);
            let fits = match &verdict {
                Verdict::Decided(decisions) => *decisions == found,
                Verdict::Ignored | Verdict::Duplicate | Verdict::Erased => found.is_empty(),
            };
            if fits {
                self.model = model;
                self.seen += found.len();
                self.world.count(match verdict {
                    Verdict::Decided(_) => "events decided",
                    Verdict::Ignored => "events ignored",
                    Verdict::Duplicate => "duplicates",
                    Verdict::Erased => "events of erased users dropped",
                });
                return Ok(());
            }
            expected = Some((set, verdict));
        }
        if found.is_empty() && may_be_overtaken {
            self.world.count("events that an erasure overtook");
            self.is_overtaken = true;
            return Ok(());
        }
        // What follows is judged by what was observed.
        self.seen += found.len();
        Err(format!(
            "{json} found {}, expected {}",
            in_short(&found),
            match expected {
                Some((set, Verdict::Decided(decisions))) => format!("by set {set} {}", in_short(&decisions)),
                other => format!("{other:?}"),
            }
        ))
    }

    /// When the record's last copy was consumed.
    fn handled(&self, record: &Placed) -> Duration {
        let copies = self.published.copies.get(&(record.partition, record.offset));
        let last = copies.and_then(|copies| copies.iter().filter_map(|copy| copy.consumed).max());
        let read = self.broker.consumed_at(Input::events(record.partition), record.offset);
        last.max(read).unwrap_or_else(|| self.world.elapsed())
    }

    /// Whether a record whose schema was unknown for a while can have failed as often as it may (rule P5).
    fn may_have_run_out(&self, record: &Placed, schema: u32) -> bool {
        let plan = &self.world.plan;
        let known = self.world.registry.known_from.get(&schema).copied().unwrap_or(Duration::MAX);
        record.at + shortest_life(plan) <= known
    }

    /// After all records: nothing is left over, and the cell says what the model says.
    fn finish(&mut self) {
        for decision in &self.decisions[self.seen..] {
            self.problems.push(format!(
                "{}: a decision that nothing accounts for (doubled or out of order): {} of {} {:?}",
                self.user, decision.campaign_id, decision.event_id, decision.reason.code
            ));
        }
        let tables = self.world.tables();
        let cell = tables.cells.get(self.user);
        let state = cell.map(|cell| codec::decode(&cell.bytes));
        if let Some(Ok(state)) = &state {
            for problem in compare_state(self.model.person(self.user), state) {
                self.problems.push(format!("{}: {problem}", self.user));
            }
        } else if self.model.person(self.user).is_some_and(|person| !person.event_ids.is_empty()) {
            self.problems.push(format!("{}: the cell is not there", self.user));
        }
    }
}

/// Decisions in a line.
fn in_short(decisions: &[Expected]) -> String {
    let one = |decision: &Expected| format!("{}:{}", decision.campaign_id, decision.reason);
    format!("[{}]", decisions.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Whether the record may have been parked for its schema.
fn has_new_schema(record: &Placed) -> bool {
    match &record.nature {
        Nature::Event { schema, .. } => *schema != GOOD,
        Nature::Poison(code) => *code == "unknown_schema",
    }
}

fn is_erasure(record: &Placed) -> bool {
    matches!(&record.nature, Nature::Event { json, .. } if json["type"] == "user.erased")
}

/// The shortest time between the first attempt and the last one that a record may have.
fn shortest_life(plan: &Plan) -> Duration {
    if plan.tiers_at_first == 0 {
        return Duration::ZERO;
    }
    let spread =
        plan.clock_offsets_ms.iter().max().unwrap_or(&0) - plan.clock_offsets_ms.iter().min().unwrap_or(&0);
    let attempts = usize::try_from(plan.max_attempts).expect("few") - 1;
    let delays = (0..attempts).map(|attempt| {
        let tier = attempt.min(plan.tiers_at_first - 1);
        // Another owner's clock may judge what ours has dated.
        i64::try_from(plan.tiers_ms[tier]).expect("short").saturating_sub(spread).max(0)
    });
    Duration::from_millis(u64::try_from(delays.sum::<i64>()).unwrap_or(0))
}
