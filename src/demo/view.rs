//! The live view: progress, speed, outcomes, latency and a few decisions as sentences, on standard error.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::world::World;
use crate::decision::Outcome;
use crate::decision::sentence::Sentence;
use crate::store::{AuditQuery, AuditStore};
use crate::telemetry::metrics::{EventResult, Snapshot};

/// Sentences shown at a time.
const SENTENCES: usize = 4;
/// How often a new sentence is looked for.
const SENTENCE_EVERY: Duration = Duration::from_millis(700);
/// Over how many looks the speed is taken.
const SPEED_LOOKS: usize = 20;

/// The lines that change.
struct Lines {
    bar: ProgressBar,
    sums: ProgressBar,
    outcomes: ProgressBar,
    latency: ProgressBar,
    sentences: Vec<ProgressBar>,
    looks: VecDeque<(Instant, u64)>,
    last_sentence: Instant,
    seen: VecDeque<String>,
}

/// The view; draws nothing when it is not live.
pub(super) struct View {
    lines: Option<Lines>,
}

impl View {
    /// Says where to join and begins to draw.
    pub fn open(live: bool, world: &World, http: SocketAddr, events: u64) -> View {
        let config = world.config();
        eprintln!("campaignd demo: a mock broker, a registry, a store and a generator in one process");
        eprintln!("  Kafka     {}", world.bootstrap_servers());
        eprintln!("  registry  {}", config.registry.url);
        eprintln!("  metrics   http://{http}/metrics");
        eprintln!("  join      kcat -b {} -t {} -C", world.bootstrap_servers(), config.topics.decisions);
        View { lines: live.then(|| Lines::new(events)) }
    }

    /// Draws what is known now.
    pub async fn draw(&mut self, snapshot: &Snapshot, users: &[String], audit: &dyn AuditStore) {
        if let Some(lines) = &mut self.lines {
            lines.draw(snapshot);
            lines.say(users, audit).await;
        }
    }

    /// Leaves the last state on the screen.
    pub fn close(self) {
        if let Some(lines) = self.lines {
            lines.bar.abandon();
            [lines.sums, lines.outcomes, lines.latency]
                .iter()
                .chain(&lines.sentences)
                .for_each(ProgressBar::abandon);
        }
    }
}

impl Lines {
    fn new(events: u64) -> Lines {
        let all = MultiProgress::new();
        let line = || {
            let line = all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("  {wide_msg}") {
                line.set_style(style);
            }
            line
        };
        let bar = all.add(ProgressBar::new(events));
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} events") {
            bar.set_style(style);
        }
        let (sums, outcomes, latency) = (line(), line(), line());
        let sentences = (0..SENTENCES).map(|_| line()).collect();
        let last_sentence = Instant::now();
        Lines {
            bar,
            sums,
            outcomes,
            latency,
            sentences,
            looks: VecDeque::new(),
            last_sentence,
            seen: VecDeque::new(),
        }
    }

    fn draw(&mut self, snapshot: &Snapshot) {
        let handled = snapshot.events_total();
        self.looks.push_back((Instant::now(), handled));
        if self.looks.len() > SPEED_LOOKS {
            self.looks.pop_front();
        }
        self.bar.set_position(handled);
        self.sums.set_message(format!(
            "{} events/s   ignored {}   duplicates dropped {}   dead letters {}",
            self.speed(),
            snapshot.events(EventResult::Ignored),
            snapshot.events(EventResult::Duplicate),
            snapshot.events(EventResult::DeadLetter),
        ));
        self.outcomes.set_message(format!(
            "decisions: allow {}   suppress {}   holdout {}   audit rows {}",
            snapshot.decisions(Outcome::Allow),
            snapshot.decisions(Outcome::Suppress),
            snapshot.decisions(Outcome::Holdout),
            snapshot.projected_rows,
        ));
        let quantile = |q| snapshot.event_latency.quantile(q).unwrap_or(0.0) * 1_000.0;
        self.latency.set_message(format!(
            "latency: p50 {:.1} ms   p99 {:.1} ms",
            quantile(0.5),
            quantile(0.99)
        ));
    }

    fn speed(&self) -> u64 {
        match (self.looks.front(), self.looks.back()) {
            (Some((from, before)), Some((to, after))) => {
                let seconds = to.duration_since(*from).as_secs_f64().max(0.001);
                // Shown only; a rounding error does not matter.
                ((after - before) as f64 / seconds) as u64
            }
            _ => 0,
        }
    }

    /// Now and then a decision of somebody who has just done something, from the audit trail.
    async fn say(&mut self, users: &[String], audit: &dyn AuditStore) {
        if self.last_sentence.elapsed() < SENTENCE_EVERY {
            return;
        }
        for user in users {
            let query = AuditQuery { user_id: user.clone(), limit: 1, ..AuditQuery::default() };
            // The view is no place to complain; the projection reports what is wrong with the store.
            let Ok(rows) = audit.read_audit(&query).await else { return };
            let Some(row) = rows.first() else { continue };
            let text = Sentence(&row.decision).to_string();
            if !self.seen.contains(&text) {
                self.seen.push_front(text);
                self.seen.truncate(SENTENCES);
                self.last_sentence = Instant::now();
                break;
            }
        }
        for (line, text) in self.sentences.iter().zip(&self.seen) {
            line.set_message(text.clone());
        }
    }
}
