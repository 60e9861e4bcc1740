//! One session: its windows, its links, and the deliveries under way on them.
//! AMQP 1.0 part 2, section 2.5 <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html>.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use fe2o3_amqp_types::{
    definitions::Handle,
    performatives::{Begin, Detach, Flow, Performative},
};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    link::{Link, Outgoing, SENDER_CREDIT},
    outcome,
    output::Output,
};
use crate::{
    broker::{Broker, ConnectionId, Refusal},
    cbs::Grants,
    clock::Moment,
    codec,
    faults::Fate,
    keys::Keys,
    queue::QueueName,
};

pub use super::link::Node;

mod attach;
mod deliver;
mod incoming;
mod settle;

/// How many frames the client may send before it hears from us: what the service gives.
const INCOMING_WINDOW: u32 = 5_000;
/// How many frames this side may send; the client's window is the one that counts.
const OUTGOING_WINDOW: u32 = 5_000;
const HANDLE_MAX: u32 = 255;

/// What a session needs of its connection.
pub struct Surroundings<'a> {
    pub connection: ConnectionId,
    pub broker: &'a Broker,
    pub keys: &'a Keys,
    pub grants: &'a mut Grants,
    pub output: &'a mut Output,
    pub wake: &'a Arc<Notify>,
    /// The largest frame that both sides take.
    pub max_frame_size: usize,
    pub now: Moment,
}

/// An answer to a request, for the link that waits for it, maybe in another session.
#[derive(Debug, PartialEq)]
pub struct Reply {
    /// What was asked.
    pub node: Node,
    /// The address of the link that waits.
    pub reply_to: Option<String>,
    /// The encoded message.
    pub payload: Vec<u8>,
}

/// What reaches beyond the session.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// An answer to a request, due after so long.
    Reply(Reply, Duration),
    /// A fault switch drops the connection.
    Drop,
    /// A fault switch silences the connection.
    Silence,
}

/// Why a session or the whole connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client broke a rule of sessions.
    #[error("the client broke the session")]
    Session(#[source] Refusal),
    /// A frame could not be written or read.
    #[error("failed to convert a frame")]
    Codec(#[from] codec::Error),
}

#[derive(Debug)]
struct Unsettled {
    queue: QueueName,
    token: Uuid,
    handle: u32,
}

#[derive(Debug)]
pub struct Session {
    channel: u16,
    /// The next transfer-id that we expect.
    next_incoming_id: u32,
    /// Frames that came in since we last told our window.
    frames_since_flow: u32,
    next_outgoing_id: u32,
    /// How many frames the client still takes.
    remote_window: u32,
    next_delivery_id: u32,
    links: BTreeMap<u32, Link>,
    unsettled: BTreeMap<u32, Unsettled>,
    /// Frames of deliveries that the client's window did not let through yet.
    waiting: VecDeque<BytesMut>,
}

impl Session {
    /// Takes a `begin`. The answer is on the same channel number.
    pub fn begin(channel: u16, begin: &Begin, output: &mut Output) -> Result<Self, Error> {
        let answer = Begin {
            remote_channel: Some(channel),
            next_outgoing_id: 0,
            incoming_window: INCOMING_WINDOW,
            outgoing_window: OUTGOING_WINDOW,
            handle_max: Handle(HANDLE_MAX),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        output.send(channel, &Performative::Begin(answer))?;
        Ok(Self {
            channel,
            next_incoming_id: begin.next_outgoing_id,
            frames_since_flow: 0,
            next_outgoing_id: 0,
            remote_window: begin.incoming_window,
            next_delivery_id: 0,
            links: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            waiting: VecDeque::new(),
        })
    }

    /// Whether any link is attached.
    pub fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Lets go of all links, which clients need not detach before they end a session. Locks stay.
    pub fn drop_links(&mut self, around: &Surroundings<'_>) {
        for link in std::mem::take(&mut self.links).into_values() {
            unwatch(&link, around);
        }
    }

    pub fn on_detach(&mut self, detach: &Detach, around: &mut Surroundings<'_>) -> Result<(), Error> {
        // No link under that handle: the client answers a detach of ours.
        if let Some(link) = self.remove_link(detach.handle.0) {
            unwatch(&link, around);
            let answer = Detach {
                handle: detach.handle.clone(),
                closed: detach.closed,
                error: None,
            };
            around.output.send(self.channel, &Performative::Detach(answer))?;
        }
        Ok(())
    }

    /// Ends the links that `concerned` picks, with an error.
    pub fn detach_links(
        &mut self,
        around: &mut Surroundings<'_>,
        refusal: &Refusal,
        concerned: impl Fn(&Node) -> bool,
    ) -> Result<(), Error> {
        let handles: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| concerned(link.node()))
            .map(|(handle, _)| *handle)
            .collect();
        for handle in handles {
            if let Some(link) = self.remove_link(handle) {
                unwatch(&link, around);
                self.send_detach(handle, refusal, around.output)?;
            }
        }
        Ok(())
    }

    pub fn on_flow(&mut self, flow: &Flow, around: &mut Surroundings<'_>) -> Result<(), Error> {
        self.next_incoming_id = flow.next_outgoing_id;
        // A client that has not seen our begin yet counts from our first transfer-id, which is 0.
        let their_end = flow
            .next_incoming_id
            .unwrap_or(0)
            .wrapping_add(flow.incoming_window);
        let window = their_end.wrapping_sub(self.next_outgoing_id);
        self.remote_window = if window > u32::MAX / 2 { 0 } else { window };
        self.flush_waiting(around.output);

        // Flows for links on which the client sends (Python) carry nothing that we need.
        if let Some(Link::Outgoing(link)) = flow
            .handle
            .as_ref()
            .and_then(|handle| self.links.get_mut(&handle.0))
        {
            link.on_flow(flow);
        }
        if flow.echo && !flow.drain {
            self.send_flow(around.output, None)?;
        }
        Ok(())
    }

    /// Tells our window, and the state of a link when one is named.
    fn send_flow(&mut self, output: &mut Output, handle: Option<u32>) -> Result<(), codec::Error> {
        self.frames_since_flow = 0;
        let link = handle.and_then(|handle| self.links.get(&handle));
        let (delivery_count, link_credit, drain) = match link {
            Some(Link::Incoming(link)) => (Some(link.delivery_count), Some(link.credit), false),
            // Only a drain is answered with a flow on a link that we send on.
            Some(Link::Outgoing(Outgoing {
                delivery_count,
                credit,
                ..
            })) => (Some(*delivery_count), Some(*credit), true),
            None => (None, None, false),
        };
        let flow = Flow {
            next_incoming_id: Some(self.next_incoming_id),
            incoming_window: INCOMING_WINDOW,
            next_outgoing_id: self.next_outgoing_id,
            outgoing_window: OUTGOING_WINDOW,
            handle: handle.map(Handle),
            delivery_count,
            link_credit,
            available: None,
            drain,
            echo: false,
            properties: None,
        };
        output.send(self.channel, &Performative::Flow(flow))
    }

    fn send_detach(&self, handle: u32, refusal: &Refusal, output: &mut Output) -> Result<(), codec::Error> {
        let detach = Detach {
            handle: Handle(handle),
            closed: true,
            error: Some(outcome::error(refusal)),
        };
        output.send(self.channel, &Performative::Detach(detach))
    }

    /// Takes a link out, with its deliveries. Their locks stay until they run out.
    fn remove_link(&mut self, handle: u32) -> Option<Link> {
        let link = self.links.remove(&handle)?;
        self.unsettled.retain(|_, delivery| delivery.handle != handle);
        Some(link)
    }
}

impl Effect {
    fn of(fate: Fate) -> Option<Self> {
        match fate {
            Fate::Answer { .. } | Fate::Lose => None,
            Fate::Silence => Some(Self::Silence),
            Fate::Drop => Some(Self::Drop),
        }
    }
}

fn unwatch(link: &Link, around: &Surroundings<'_>) {
    if let Link::Outgoing(Outgoing {
        node: Node::Messages(queue, _),
        ..
    }) = link
    {
        around.broker.unwatch(queue, around.connection);
    }
}
