//! Limits on how often a campaign says yes to a user.
//!
//! All limits of a campaign must hold; of those that do not, the reason names the one that reopens last (never is
//! last of all; on a tie the one written last). Limits count the yeses of the [`AllowLog`](crate::user::allows), each
//! at the time of its event, and judge the time of the event at hand, never the clock.
//!
//! What always holds, whatever the order of arrival: no window of length D, half-open, ever holds more than N yeses of
//! a campaign with `at_most N per D`; no UTC day holds two of a campaign with `once_per calendar_day`. Where the
//! bounded log can not tell, the answer is no (`cap_history_truncated`).

use crate::campaign::definition::Limit;
use crate::user::allows::{Allows, CampaignAllows};

use super::{LimitReason, ReasonCode};

const DAY_MS: i64 = 86_400_000;

/// A limit that says no.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Which kind of limit, or that the log can not tell.
    pub code: ReasonCode,
    /// Numbers for whoever asks why.
    pub limit: LimitReason,
}

/// The refusal that reopens last, of all limits that refuse a yes at `at_ms`; `None` when all hold.
pub fn check(limits: &[Limit], allows: Allows<'_>, at_ms: i64) -> Option<Refusal> {
    limits
        .iter()
        .filter_map(|limit| check_one(limit, allows, at_ms))
        .max_by_key(|refusal| refusal.limit.reopens_at_ms.unwrap_or(i64::MAX))
}

/// Whether one limit refuses a yes at `at_ms`.
pub fn check_one(limit: &Limit, allows: Allows<'_>, at_ms: i64) -> Option<Refusal> {
    let nothing = CampaignAllows::default();
    let log = match allows {
        Allows::Known(log) => log,
        Allows::Never => &nothing,
        Allows::Unknown => return Some(refusal(limit, ReasonCode::CapHistoryTruncated, 0, None)),
    };
    match *limit {
        Limit::OncePerEver => {
            (log.total() > 0).then(|| refusal(limit, ReasonCode::OnceEver, log.total(), None))
        }
        Limit::OncePerCalendarDay => calendar_day(limit, log, at_ms),
        Limit::AtMost { n, per_ms } => rolling(limit, log, at_ms, Cap { n, per_ms }),
    }
}

fn refusal(limit: &Limit, code: ReasonCode, used: u32, reopens_at_ms: Option<i64>) -> Refusal {
    let allowed = match limit {
        Limit::OncePerEver | Limit::OncePerCalendarDay => 1,
        Limit::AtMost { n, .. } => *n,
    };
    Refusal { code, limit: LimitReason { limit: limit.to_string(), used, allowed, reopens_at_ms } }
}

fn calendar_day(limit: &Limit, log: &CampaignAllows, at_ms: i64) -> Option<Refusal> {
    let day = at_ms.div_euclid(DAY_MS);
    let dropped_day = log.dropped_ms().map(|dropped| dropped.div_euclid(DAY_MS));
    let used_on = |day: i64| {
        let first_ms = day.saturating_mul(DAY_MS);
        let next_ms = day.saturating_add(1).saturating_mul(DAY_MS);
        let before = |time_ms: i64| log.times_ms().partition_point(|time| *time < time_ms);
        let kept = before(next_ms).saturating_sub(before(first_ms));
        to_u32(kept).saturating_add(u32::from(dropped_day == Some(day)))
    };
    let used = used_on(day);
    let unsure = dropped_day.is_some_and(|dropped| dropped > day);
    if used == 0 && !unsure {
        return None;
    }
    // Days up to the newest lost time can not be judged; after it, at most as many days are used as times are kept.
    let mut open_day = dropped_day.map_or(day, |dropped| dropped.max(day)).saturating_add(1);
    while used_on(open_day) > 0 && open_day < i64::MAX {
        open_day = open_day.saturating_add(1);
    }
    let code = if used > 0 { ReasonCode::CalendarLimit } else { ReasonCode::CapHistoryTruncated };
    Some(refusal(limit, code, used, Some(open_day.saturating_mul(DAY_MS))))
}

/// At most `n` in any half-open window of `per_ms`.
#[derive(Clone, Copy)]
struct Cap {
    n: u32,
    per_ms: i64,
}

/// Whether one more fits under a cap.
enum Fit {
    /// It does.
    Fits,
    /// A window that would hold it is full with so many.
    Full(u32),
    /// What is kept would allow it, but times that are not kept may lie in its windows.
    Unsure(u32),
}

fn rolling(limit: &Limit, log: &CampaignAllows, at_ms: i64, cap: Cap) -> Option<Refusal> {
    let (code, used) = match fit(log, at_ms, cap) {
        Fit::Fits => return None,
        Fit::Full(used) => (ReasonCode::RollingLimit, used),
        Fit::Unsure(used) => (ReasonCode::CapHistoryTruncated, used),
    };
    // Room can only come when a known time leaves the windows: at that time plus D.
    let reopens_at_ms = log
        .dropped_ms()
        .iter()
        .chain(log.times_ms())
        .map(|time| time.saturating_add(cap.per_ms))
        .find(|candidate| *candidate > at_ms && matches!(fit(log, *candidate, cap), Fit::Fits));
    Some(refusal(limit, code, used, reopens_at_ms))
}

/// One more at `at_ms` changes exactly the windows that hold it. Each of them holds no more than one that ends at
/// `at_ms` or at a known time within D after it, so only those are counted. In order, that is the one at `at_ms`.
fn fit(log: &CampaignAllows, at_ms: i64, Cap { n, per_ms }: Cap) -> Fit {
    let times = log.times_ms();
    let up_to = |time_ms: i64| times.partition_point(|time| *time <= time_ms);
    let used_until = |end_ms: i64| {
        let after_ms = end_ms.saturating_sub(per_ms);
        let lost = log.dropped_ms().is_some_and(|dropped| dropped > after_ms && dropped <= end_ms);
        to_u32(up_to(end_ms).saturating_sub(up_to(after_ms))).saturating_add(u32::from(lost))
    };
    let later = times.iter().skip(up_to(at_ms)).take_while(|time| **time < at_ms.saturating_add(per_ms));
    let used = later.map(|end_ms| used_until(*end_ms)).fold(used_until(at_ms), u32::max);
    if used >= n {
        Fit::Full(used)
    } else if log.dropped_ms().is_some_and(|dropped| dropped > at_ms.saturating_sub(per_ms)) {
        Fit::Unsure(used)
    } else {
        Fit::Fits
    }
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
