//! What the processor tells the poller, and what remains of it when several orders wait.

use std::collections::BTreeSet;

use crate::pipeline::log::Start;

/// An order of the processor.
#[derive(Debug)]
pub(super) enum Command {
    /// Position the partitions and let records flow.
    Start(Start),
    /// Let nothing flow.
    Halt,
    /// Let these partitions of `events` not flow, and all others.
    Hold(BTreeSet<i32>),
    /// Leave the group and join it again.
    Rejoin,
    /// Leave the group and end.
    Close,
}

/// Whether records flow.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Start(Start),
    Halt,
}

/// Orders that wait, folded: a later one takes the place of an earlier one of its kind and of no other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    pub flow: Option<Flow>,
    pub hold: Option<BTreeSet<i32>>,
    pub rejoin: bool,
    pub close: bool,
}

impl Orders {
    pub fn add(&mut self, command: Command) {
        match command {
            Command::Start(start) => self.flow(Flow::Start(start)),
            Command::Halt => self.flow(Flow::Halt),
            Command::Hold(partitions) => self.hold = Some(partitions),
            Command::Rejoin => self.rejoin = true,
            Command::Close => self.close = true,
        }
    }

    /// What is held counts until the next start, so what was said before one is void.
    fn flow(&mut self, flow: Flow) {
        self.flow = Some(flow);
        self.hold = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn start(epoch: u64) -> Start {
        Start { epoch, next_offsets: BTreeMap::new(), max_records_per_user: None, max_records: None }
    }

    fn folded(commands: impl IntoIterator<Item = Command>) -> Orders {
        let mut orders = Orders::default();
        commands.into_iter().for_each(|command| orders.add(command));
        orders
    }

    #[test]
    fn an_order_that_waits_is_not_lost_by_another_kind_behind_it() {
        let orders = folded([Command::Start(start(1)), Command::Hold([2].into()), Command::Rejoin]);
        assert_eq!(orders.flow, Some(Flow::Start(start(1))));
        assert_eq!((orders.hold, orders.rejoin), (Some([2].into()), true));
    }

    #[test]
    fn the_later_of_a_kind_counts_and_a_start_ends_what_is_held() {
        let orders = folded([
            Command::Hold([1].into()),
            Command::Start(start(1)),
            Command::Halt,
            Command::Start(start(2)),
        ]);
        assert_eq!((orders.flow, orders.hold), (Some(Flow::Start(start(2))), None));
        assert_eq!(folded([Command::Hold([1].into()), Command::Hold([].into())]).hold, Some([].into()));
    }
}
