//! 10,000 random and mutated records, every one of them accounted for.

use crate::support::poison::every_record_is_accounted_for;
use crate::support::stage::Stage;

#[test]
fn ten_thousand_records_of_any_kind_are_accounted_for() {
    every_record_is_accounted_for(&Stage::embedded("poison", 4), 10_000);
}
