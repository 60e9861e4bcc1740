//! The two kinds of links, as the broker sees them.

use std::collections::VecDeque;

use bytes::BytesMut;
use fe2o3_amqp_types::performatives::Flow;

use crate::queue::{Part, QueueName, ReceiveMode};

/// How many messages a sender may have under way: what the service gives.
pub const SENDER_CREDIT: u32 = 100;

/// What a link is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Cbs,
    Messages(QueueName, Part),
    Management(QueueName, Part),
}

impl Node {
    pub fn queue(&self) -> Option<&QueueName> {
        match self {
            Self::Cbs => None,
            Self::Messages(queue, _) | Self::Management(queue, _) => Some(queue),
        }
    }
}

#[derive(Debug)]
pub enum Link {
    /// The client sends.
    Incoming(Incoming),
    /// The client receives.
    Outgoing(Outgoing),
}

impl Link {
    pub fn node(&self) -> &Node {
        match self {
            Self::Incoming(link) => &link.node,
            Self::Outgoing(link) => &link.node,
        }
    }
}

/// A link on which the client sends.
#[derive(Debug)]
pub struct Incoming {
    pub node: Node,
    pub max_message_size: u64,
    pub delivery_count: u32,
    pub credit: u32,
    /// The delivery whose frames are still coming in.
    pub partial: Option<Partial>,
}

/// A delivery of which some frames have come in.
#[derive(Debug)]
pub struct Partial {
    pub delivery_id: u32,
    pub format: u32,
    pub settled: bool,
    /// Bytes so far, also when they were thrown away.
    pub size: u64,
    pub payload: BytesMut,
}

/// A link on which the client receives.
#[derive(Debug)]
pub struct Outgoing {
    pub node: Node,
    pub mode: ReceiveMode,
    /// The address of the link's target, which requests name as their reply-to.
    pub target: Option<String>,
    pub delivery_count: u32,
    pub credit: u32,
    /// The client wants the credit used or given back.
    pub drain: bool,
    /// Answers of `$cbs` and `$management` that wait for credit.
    pub replies: VecDeque<Vec<u8>>,
}

impl Outgoing {
    /// Takes the credit of a flow: AMQP 1.0 part 2, section 2.6.7. The same flow twice changes nothing.
    pub fn on_flow(&mut self, flow: &Flow) {
        if let Some(credit) = flow.link_credit {
            let limit = flow.delivery_count.unwrap_or(0).wrapping_add(credit);
            let left = limit.wrapping_sub(self.delivery_count);
            // More than half the number space is a limit that deliveries under way have passed.
            self.credit = if left > u32::MAX / 2 { 0 } else { left };
        }
        self.drain = flow.drain;
    }

    /// Uses one credit.
    pub fn advance(&mut self) {
        self.credit = self.credit.saturating_sub(1);
        self.delivery_count = self.delivery_count.wrapping_add(1);
    }

    /// Gives back what credit is left, as a drained link does.
    pub fn use_up(&mut self) {
        self.delivery_count = self.delivery_count.wrapping_add(self.credit);
        self.credit = 0;
        self.drain = false;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::fresh(0, 0, 10, 10)]
    #[case::some_under_way(5, 2, 10, 7)]
    #[case::all_under_way(12, 2, 10, 0)]
    #[case::more_than_it_now_grants(13, 2, 10, 0)]
    #[case::around_the_end(2, u32::MAX - 1, 10, 6)]
    fn credit_counts_what_is_under_way(
        #[case] own: u32,
        #[case] seen: u32,
        #[case] granted: u32,
        #[case] left: u32,
    ) {
        let mut link = link(own);

        link.on_flow(&flow(seen, granted));
        link.on_flow(&flow(seen, granted));

        assert_eq!(link.credit, left);
    }

    #[test]
    fn a_drained_link_has_counted_its_credit_as_used() {
        let mut link = link(3);
        link.on_flow(&Flow {
            drain: true,
            ..flow(3, 4)
        });

        link.use_up();

        assert_eq!((link.delivery_count, link.credit, link.drain), (7, 0, false));
    }

    fn link(delivery_count: u32) -> Outgoing {
        Outgoing {
            node: Node::Cbs,
            mode: ReceiveMode::PeekLock,
            target: None,
            delivery_count,
            credit: 0,
            drain: false,
            replies: VecDeque::new(),
        }
    }

    fn flow(delivery_count: u32, link_credit: u32) -> Flow {
        Flow {
            next_incoming_id: Some(0),
            incoming_window: 100,
            next_outgoing_id: 0,
            outgoing_window: 100,
            handle: None,
            delivery_count: Some(delivery_count),
            link_credit: Some(link_credit),
            available: None,
            drain: false,
            echo: false,
            properties: None,
        }
    }
}
