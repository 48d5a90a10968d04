//! From where on records may be skipped: rule K2.
//!
//! A batch that crashed, or a zombie that still writes, may have stored what a record caused. Nothing at an offset that
//! either can have read is skipped before its user's cell has been loaded. Our own crashed batches have read nothing
//! beyond the log's end at the taking or the rewind; a zombie may read and write for the session time-out and one write
//! more. So the log's end is taken when both have passed, and only what lies at or above it is skipped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The watermarks of one assignment.
#[derive(Debug)]
pub struct Watermarks {
    grace: Duration,
    fenced: Instant,
    marks: Option<Arc<BTreeMap<i32, i64>>>,
}

impl Watermarks {
    /// None yet; `grace` is the session time-out and the store's write time-out together.
    pub fn new(grace: Duration) -> Watermarks {
        Watermarks { grace, fenced: Instant::now(), marks: None }
    }

    /// The fences have just been taken.
    pub fn fenced(&mut self) {
        self.fenced = Instant::now();
        self.marks = None;
    }

    /// We have rewound, and the log ends here now: good enough when no zombie can be left.
    pub fn rewound(&mut self, ends: BTreeMap<i32, i64>) {
        self.marks = (Instant::now() >= self.due()).then(|| Arc::new(ends));
    }

    /// The log's ends, read when they were due.
    pub fn taken(&mut self, ends: BTreeMap<i32, i64>) {
        self.marks = Some(Arc::new(ends));
    }

    /// When the ends must be read; `None` when they stand.
    pub fn next(&self) -> Option<Instant> {
        self.marks.is_none().then(|| self.due())
    }

    fn due(&self) -> Instant {
        self.fenced + self.grace
    }

    /// Offset per partition of `events` from which records may be skipped; empty while none may.
    pub fn marks(&self) -> Arc<BTreeMap<i32, i64>> {
        self.marks.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[test]
    fn nothing_is_skipped_before_the_grace_has_passed() {
        let mut marks = Watermarks::new(GRACE);
        marks.fenced();
        assert_eq!((marks.marks().len(), marks.next()), (0, Some(marks.fenced + GRACE)));
        marks.rewound([(0, 7)].into());
        assert!(marks.marks().is_empty(), "a zombie may still read beyond it");
        marks.taken([(0, 9)].into());
        assert_eq!((marks.marks().get(&0), marks.next()), (Some(&9), None));
    }

    #[test]
    fn a_rewind_moves_the_mark_up_and_a_new_fence_takes_it_away() {
        let mut marks = Watermarks::new(Duration::ZERO);
        marks.taken([(0, 7)].into());
        marks.rewound([(0, 9)].into());
        assert_eq!(marks.marks().get(&0), Some(&9));
        marks.fenced();
        assert!(marks.marks().is_empty() && marks.next().is_some());
    }
}
