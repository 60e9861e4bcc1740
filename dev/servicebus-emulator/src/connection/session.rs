//! One session: its windows, its links, and the deliveries under way on them.
//! AMQP 1.0 part 2, section 2.5 <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html>.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use fe2o3_amqp_types::{
    definitions::{Handle, Role},
    messaging::DeliveryState,
    performatives::{Begin, Detach, Disposition as TypedDisposition, Flow, Performative, Transfer},
};
use serde_bytes::ByteBuf;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    link::{Link, Outgoing, SENDER_CREDIT},
    outcome::{self, Disposition},
    output::{Output, transfer_frames},
};
use crate::{
    broker::{Broker, ConnectionId, Refusal},
    cbs::Grants,
    clock::Moment,
    codec,
    faults::Fate,
    keys::Keys,
    queue::{Delivery, QueueName, ReceiveMode},
};

pub use super::link::Node;

mod attach;
mod incoming;

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

    /// Takes a settlement and answers it.
    pub fn on_disposition(
        &mut self,
        disposition: &Disposition,
        around: &mut Surroundings<'_>,
    ) -> Result<Option<Effect>, Error> {
        if !disposition.from_receiver {
            return Ok(None);
        }
        let Some(outcome) = &disposition.outcome else {
            if disposition.settled {
                self.unsettled.retain(|id, _| !disposition.covers(*id));
            }
            return Ok(None);
        };

        let ids: Vec<_> = if disposition.first <= disposition.last {
            self.unsettled
                .range(disposition.first..=disposition.last)
                .map(|(id, _)| *id)
                .collect()
        } else {
            self.unsettled
                .keys()
                .copied()
                .filter(|id| disposition.covers(*id))
                .collect()
        };
        if ids.is_empty() && !disposition.settled {
            let lost = Refusal::from(crate::queue::Error::LockLost);
            self.answer(
                disposition.first,
                disposition.last,
                outcome::refusal(&lost),
                Fate::NOW,
                around.output,
            )?;
            return Ok(None);
        }

        let mut confirmed: Vec<(u32, Fate)> = Vec::new();
        let mut effect = None;
        for id in ids {
            let Some(delivery) = self.unsettled.remove(&id) else {
                continue;
            };
            let settled = around.broker.settle(
                &delivery.queue,
                delivery.token,
                outcome.settlement.clone(),
                around.now,
            );
            effect = effect.or(Effect::of(settled.fate));
            if disposition.settled {
                continue;
            }
            match settled.result {
                Ok(()) => confirmed.push((id, settled.fate)),
                Err(refusal) => {
                    self.answer(id, id, outcome::refusal(&refusal), settled.fate, around.output)?
                }
            }
        }
        // Mostly one answer for the whole range, as the client asked.
        for run in confirmed.chunk_by(|(a, fate), (b, next)| a.wrapping_add(1) == *b && fate == next) {
            if let ([(first, fate), ..], [.., (last, _)]) = (run, run) {
                self.answer(*first, *last, outcome.confirmation(), *fate, around.output)?;
            }
        }
        Ok(effect)
    }

    /// Takes an answer for one of this session's links. Gives it back when there is none that waits for it.
    pub fn take_reply(
        &mut self,
        node: &Node,
        reply_to: Option<&str>,
        payload: Vec<u8>,
    ) -> Result<(), Vec<u8>> {
        let waiting = self.links.values_mut().find_map(|link| match link {
            Link::Outgoing(link)
                if link.node == *node && reply_to.is_none_or(|to| link.target.as_deref() == Some(to)) =>
            {
                Some(link)
            }
            _ => None,
        });
        match waiting {
            Some(link) => {
                link.replies.push_back(payload);
                Ok(())
            }
            None => Err(payload),
        }
    }

    /// Sends what is ready on links that have credit, one message a link in turn, then answers drains.
    pub fn pump(&mut self, around: &mut Surroundings<'_>) -> Result<Option<Effect>, Error> {
        let handles: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| matches!(link, Link::Outgoing(link) if link.credit > 0 || link.drain))
            .map(|(handle, _)| *handle)
            .collect();
        let mut sent = true;
        while std::mem::take(&mut sent) {
            for &handle in &handles {
                if !self.waiting.is_empty() || self.remote_window == 0 || around.output.is_full() {
                    return Ok(None);
                }
                let (progress, effect) = self.pump_link(handle, around)?;
                sent |= progress;
                if effect.is_some() {
                    return Ok(effect);
                }
            }
        }
        for handle in handles {
            let Some(Link::Outgoing(link)) = self.links.get_mut(&handle) else {
                continue;
            };
            if link.drain {
                link.use_up();
                self.send_flow(around.output, Some(handle))?;
            }
        }
        Ok(None)
    }

    fn pump_link(
        &mut self,
        handle: u32,
        around: &mut Surroundings<'_>,
    ) -> Result<(bool, Option<Effect>), Error> {
        let Some(Link::Outgoing(link)) = self.links.get_mut(&handle) else {
            return Ok((false, None));
        };
        if link.credit == 0 {
            return Ok((false, None));
        }
        match &link.node {
            Node::Cbs | Node::Management(..) => {
                let Some(payload) = link.replies.pop_front() else {
                    return Ok((false, None));
                };
                link.advance();
                let delivery = Delivery {
                    sequence: 0,
                    token: Uuid::new_v4(),
                    payload,
                };
                self.transfer(handle, &delivery, true, around)?;
                Ok((true, None))
            }
            Node::Messages(queue, part) => {
                let (queue, part, mode) = (queue.clone(), *part, link.mode);
                // A queue deleted just now: its links are about to be detached.
                let received = around
                    .broker
                    .receive(&queue, part, mode, around.now)
                    .ok()
                    .flatten();
                let Some((delivery, fate)) = received else {
                    return Ok((false, None));
                };
                link.advance();
                let settled = mode == ReceiveMode::ReceiveAndDelete;
                let id = self.transfer(handle, &delivery, settled, around)?;
                if !settled {
                    self.unsettled.insert(
                        id,
                        Unsettled {
                            queue,
                            token: delivery.token,
                            handle,
                        },
                    );
                }
                Ok((true, Effect::of(fate)))
            }
        }
    }

    fn transfer(
        &mut self,
        handle: u32,
        delivery: &Delivery,
        settled: bool,
        around: &mut Surroundings<'_>,
    ) -> Result<u32, Error> {
        let id = self.next_delivery_id;
        self.next_delivery_id = id.wrapping_add(1);
        let transfer = Transfer {
            handle: Handle(handle),
            delivery_id: Some(id),
            // The lock token, in the byte order of a .NET GUID.
            delivery_tag: Some(ByteBuf::from(delivery.token.to_bytes_le())),
            message_format: Some(0),
            settled: Some(settled),
            more: false,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: true,
        };
        self.waiting.extend(transfer_frames(
            self.channel,
            transfer,
            &delivery.payload,
            around.max_frame_size,
        )?);
        self.flush_waiting(around.output);
        Ok(id)
    }

    fn flush_waiting(&mut self, output: &mut Output) {
        while self.remote_window > 0
            && let Some(frame) = self.waiting.pop_front()
        {
            output.append(&frame);
            self.remote_window -= 1;
            self.next_outgoing_id = self.next_outgoing_id.wrapping_add(1);
        }
    }

    fn answer(
        &self,
        first: u32,
        last: u32,
        state: DeliveryState,
        fate: Fate,
        output: &mut Output,
    ) -> Result<(), codec::Error> {
        let Fate::Answer { after } = fate else {
            return Ok(());
        };
        let answer = TypedDisposition {
            role: Role::Sender,
            first,
            last: Some(last),
            settled: true,
            state: Some(state),
            batchable: false,
        };
        output.send_later(self.channel, &Performative::Disposition(answer), after)
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
