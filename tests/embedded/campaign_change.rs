//! A campaign change takes effect without restart, on embedded parts.

use crate::support::change::takes_effect_without_restart;
use crate::support::stage::Stage;

#[test]
fn a_campaign_change_takes_effect_without_restart() {
    takes_effect_without_restart(&Stage::embedded("change", 4));
}
