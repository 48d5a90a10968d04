//! When which campaign said yes: what limits are counted from.
//!
//! A yes is an `allow`, or a `holdout`, so that the control group is sampled by the same limits. Every campaign's yes
//! is logged, whether it has limits or not: a limit that is added later sees the past.
//!
//! What always holds, and why it fits in a bounded cell:
//!
//! - that a campaign ever said yes is never forgotten ([`AllowLog::of`] knows it for [`MAX_CAMPAIGNS`] campaigns);
//! - of each campaign the latest [`MAX_TIMES_PER_CAMPAIGN`] times are kept, [`MAX_TIMES`] over all campaigns. When
//!   there are more, the campaign whose latest yes is the oldest loses its times. What is lost is marked: `dropped_ms`
//!   is the newest lost time, no kept time is older, so a limit whose window begins at or after it is exact, and any
//!   other fails closed (`cap_history_truncated`);
//! - when [`MAX_CAMPAIGNS`] different campaigns have said yes, a further one is not logged and [`AllowLog::of`]
//!   answers [`Allows::Unknown`] for it: its limits fail closed, campaigns without limits go on.
//!
//! Campaigns are kept by the 64-bit XXH3 hash of their id. A full log of marks only has 8,192 entries and takes about
//! 170 KiB encoded, the times at most 32 KiB more; a usual user has a few entries.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

/// Campaigns that a user's log can hold. None is ever dropped.
pub const MAX_CAMPAIGNS: usize = 8192;

/// Times kept per campaign, the latest first to stay. A rolling cap above this number fails closed when it is
/// reached.
pub const MAX_TIMES_PER_CAMPAIGN: usize = 64;

/// Times kept over all campaigns.
pub const MAX_TIMES: usize = 4096;

/// The log of one campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CampaignAllows {
    pub(super) total: u32,
    pub(super) dropped_ms: Option<i64>,
    /// In order of time.
    pub(super) times_ms: Vec<i64>,
}

impl CampaignAllows {
    /// How often the campaign ever said yes.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// The kept times, oldest first, ms since the Unix epoch.
    pub fn times_ms(&self) -> &[i64] {
        &self.times_ms
    }

    /// Newest time that is not kept any more; no kept time is older.
    pub fn dropped_ms(&self) -> Option<i64> {
        self.dropped_ms
    }

    fn newest_ms(&self) -> Option<i64> {
        self.times_ms.last().copied().max(self.dropped_ms)
    }

    /// Whether the parts fit together, as read by the codec.
    pub(super) fn is_consistent(&self) -> bool {
        let in_order = self.times_ms.iter().zip(self.times_ms.iter().skip(1)).all(|(a, b)| a <= b);
        let newer = match (self.dropped_ms, self.times_ms.first()) {
            (Some(dropped), Some(oldest)) => dropped <= *oldest,
            _ => true,
        };
        in_order && newer && self.total > 0 && self.newest_ms().is_some()
    }
}

/// What the log knows of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allows<'a> {
    /// It never said yes.
    Never,
    /// It did.
    Known(&'a CampaignAllows),
    /// The log was full: it may have said yes, nobody knows when.
    Unknown,
}

/// The yeses of a user, by campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowLog {
    pub(super) campaigns: BTreeMap<u64, CampaignAllows>,
    times: usize,
}

impl AllowLog {
    /// What is known of a campaign.
    pub fn of(&self, campaign_id: &str) -> Allows<'_> {
        match self.campaigns.get(&key(campaign_id)) {
            Some(allows) => Allows::Known(allows),
            None if self.campaigns.len() >= MAX_CAMPAIGNS => Allows::Unknown,
            None => Allows::Never,
        }
    }

    /// How many campaigns have said yes.
    pub fn len(&self) -> usize {
        self.campaigns.len()
    }

    /// Whether no campaign ever said yes.
    pub fn is_empty(&self) -> bool {
        self.campaigns.is_empty()
    }

    /// Logs a yes of a campaign for an event of time `at_ms`.
    pub(super) fn record(&mut self, campaign_id: &str, at_ms: i64) {
        let key = key(campaign_id);
        if self.campaigns.len() >= MAX_CAMPAIGNS && !self.campaigns.contains_key(&key) {
            return;
        }
        let allows = self.campaigns.entry(key).or_default();
        allows.total = allows.total.saturating_add(1);
        if allows.dropped_ms.is_some_and(|dropped| at_ms < dropped) {
            return;
        }
        let place = allows.times_ms.partition_point(|time| *time <= at_ms);
        allows.times_ms.insert(place, at_ms);
        if allows.times_ms.len() > MAX_TIMES_PER_CAMPAIGN {
            let oldest = allows.times_ms.remove(0);
            allows.dropped_ms = allows.dropped_ms.max(Some(oldest));
        } else {
            self.times = self.times.saturating_add(1);
        }
        while self.times > MAX_TIMES && self.drop_times_of_the_oldest() {}
    }

    /// Puts back what the codec read.
    pub(super) fn insert(&mut self, key: u64, allows: CampaignAllows) {
        self.times = self.times.saturating_add(allows.times_ms.len());
        self.campaigns.insert(key, allows);
    }

    pub(super) fn approximate_bytes(&self) -> usize {
        self.campaigns.len().saturating_mul(64).saturating_add(self.times.saturating_mul(8))
    }

    fn drop_times_of_the_oldest(&mut self) -> bool {
        let with_times = self.campaigns.values_mut().filter(|allows| !allows.times_ms.is_empty());
        let Some(oldest) = with_times.min_by_key(|allows| allows.newest_ms()) else { return false };
        self.times = self.times.saturating_sub(oldest.times_ms.len());
        oldest.dropped_ms = oldest.newest_ms();
        oldest.times_ms = Vec::new();
        true
    }
}

fn key(campaign_id: &str) -> u64 {
    xxh3_64(campaign_id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known<'a>(log: &'a AllowLog, campaign: &str) -> &'a CampaignAllows {
        match log.of(campaign) {
            Allows::Known(allows) => allows,
            other => panic!("{campaign}: {other:?}"),
        }
    }

    #[test]
    fn times_are_ordered_whatever_the_order_of_arrival() {
        let mut log = AllowLog::default();
        assert!(log.is_empty());
        assert_eq!(log.of("a"), Allows::Never);
        for time in [30, 10, 20] {
            log.record("a", time);
        }
        log.record("b", 5);
        assert_eq!(known(&log, "a").times_ms(), [10, 20, 30]);
        assert_eq!(known(&log, "a").total(), 3);
        assert_eq!(known(&log, "b").times_ms(), [5]);
        assert_eq!(log.of("c"), Allows::Never);
        assert_eq!(log.len(), 2);
    }

    #[test]
    fn the_latest_times_of_a_campaign_stay_and_the_loss_is_marked() {
        let mut log = AllowLog::default();
        for time in 0..=64 {
            log.record("a", time);
        }
        let allows = known(&log, "a");
        assert_eq!(allows.times_ms().len(), MAX_TIMES_PER_CAMPAIGN);
        assert_eq!(allows.times_ms().first(), Some(&1));
        assert_eq!(allows.dropped_ms(), Some(0));
        assert_eq!(allows.total(), 65);
        assert!(allows.is_consistent());

        let before = known(&log, "a").clone();
        log.record("a", -1);
        assert_eq!(known(&log, "a").times_ms(), before.times_ms(), "older than what is lost: counted only");
        assert_eq!(known(&log, "a").total(), 66);
    }

    #[test]
    fn a_late_time_pushed_out_at_once_is_marked() {
        let mut log = AllowLog::default();
        for time in 100..164 {
            log.record("a", time);
        }
        log.record("a", 50);
        assert_eq!(known(&log, "a").dropped_ms(), Some(50));
        assert_eq!(known(&log, "a").times_ms().first(), Some(&100));
    }

    #[test]
    fn over_all_campaigns_the_oldest_loses_its_times_but_not_its_mark() {
        let mut log = AllowLog::default();
        let campaigns = MAX_TIMES / MAX_TIMES_PER_CAMPAIGN;
        for n in 0..campaigns {
            for time in 0..64 {
                // Campaign 3 was active last before all others.
                let base = if n == 3 { 0 } else { 1_000 + i64::try_from(n).unwrap() * 100 };
                log.record(&format!("c{n}"), base + time);
            }
        }
        assert_eq!(known(&log, "c3").times_ms().len(), 64);
        log.record("one more", 99_999);
        let marked = known(&log, "c3");
        assert_eq!((marked.times_ms().len(), marked.dropped_ms(), marked.total()), (0, Some(63), 64));
        assert!(marked.is_consistent());
        assert_eq!(known(&log, "c0").times_ms().len(), 64);
        let kept: usize = log.campaigns.values().map(|allows| allows.times_ms.len()).sum();
        assert_eq!(kept, log.times);
        assert!(kept <= MAX_TIMES);
    }

    #[test]
    fn a_full_log_forgets_no_campaign_and_admits_that_it_does_not_know() {
        let mut log = AllowLog::default();
        for n in 0..MAX_CAMPAIGNS {
            log.record(&format!("c{n}"), i64::try_from(n).unwrap());
        }
        assert_eq!(log.of("another"), Allows::Unknown);
        log.record("another", 1_000_000);
        assert_eq!(log.of("another"), Allows::Unknown);
        assert_eq!(log.len(), MAX_CAMPAIGNS);
        assert_eq!(known(&log, "c0").total(), 1, "once per ever outlives everything");
        log.record("c0", 1_000_000);
        assert_eq!(known(&log, "c0").total(), 2);
        assert!(log.approximate_bytes() > MAX_CAMPAIGNS * 64);
    }

    #[test]
    fn contradicting_parts_are_noticed() {
        let good = CampaignAllows { total: 3, dropped_ms: Some(1), times_ms: vec![1, 2] };
        assert!(good.is_consistent());
        assert!(!CampaignAllows { total: 0, ..good.clone() }.is_consistent());
        assert!(!CampaignAllows { dropped_ms: Some(2), ..good.clone() }.is_consistent());
        assert!(!CampaignAllows { times_ms: vec![2, 1], ..good.clone() }.is_consistent());
        assert!(!CampaignAllows { total: 1, dropped_ms: None, times_ms: Vec::new() }.is_consistent());
    }
}
