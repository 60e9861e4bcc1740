//! Transfers that clients send: messages for queues, requests for `$cbs` and `$management`.

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::{
    definitions::Role,
    messaging::{Accepted, DeliveryState},
    performatives::{Disposition as TypedDisposition, Performative, Transfer},
};
use uuid::Uuid;

use super::{Effect, Error, INCOMING_WINDOW, Reply, SENDER_CREDIT, Session, Surroundings};
use crate::{
    broker::Refusal,
    cbs, codec,
    connection::{
        link::{Incoming, Link, Node, Partial},
        outcome,
        output::Output,
    },
    faults::Fate,
    management,
    message::Message,
    rpc::{Dialect, Request},
};

/// A whole delivery.
struct Arrived {
    delivery_id: u32,
    format: u32,
    settled: bool,
    /// In bytes, also when the payload was thrown away for being too large.
    size: u64,
    payload: Bytes,
}

impl Session {
    /// Takes one transfer frame.
    pub fn on_transfer(
        &mut self,
        transfer: &Transfer,
        payload: Bytes,
        around: &mut Surroundings<'_>,
    ) -> Result<Option<Effect>, Error> {
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        self.frames_since_flow += 1;
        let handle = transfer.handle.0;
        let Some(Link::Incoming(link)) = self.links.get_mut(&handle) else {
            // Frames that were under way when we detached the link.
            return Ok(None);
        };
        let effect = match link.collect(transfer, payload)? {
            Some(arrived) => self.take_delivery(handle, &arrived, around)?,
            None => None,
        };
        if self.frames_since_flow > INCOMING_WINDOW / 2 {
            self.send_flow(around.output, None)?;
        }
        Ok(effect)
    }

    fn take_delivery(
        &mut self,
        handle: u32,
        arrived: &Arrived,
        around: &mut Surroundings<'_>,
    ) -> Result<Option<Effect>, Error> {
        let Some(Link::Incoming(link)) = self.links.get_mut(&handle) else {
            return Ok(None);
        };
        link.delivery_count = link.delivery_count.wrapping_add(1);
        link.credit = link.credit.saturating_sub(1);
        let top_up = link.credit <= SENDER_CREDIT / 2;
        if top_up {
            link.credit = SENDER_CREDIT;
        }
        let node = link.node.clone();
        let limit = link.max_message_size;

        let effect = match &node {
            _ if arrived.size > limit => {
                // Refused as one message; the link stays, or the Python SDK does not learn why.
                let refusal = Refusal::new(
                    "amqp:link:message-size-exceeded",
                    format!(
                        "The received message ({} bytes) exceeds the limit ({limit} bytes) of the link.",
                        arrived.size
                    ),
                );
                self.confirm(arrived, outcome::refusal(&refusal), Fate::NOW, around.output)?;
                None
            }
            Node::Messages(queue, _) => {
                let sent = around
                    .broker
                    .send(queue, &arrived.payload, arrived.format, around.now);
                let state = match &sent.result {
                    Ok(()) => DeliveryState::Accepted(Accepted {}),
                    Err(refusal) => outcome::refusal(refusal),
                };
                self.confirm(arrived, state, sent.fate, around.output)?;
                Effect::of(sent.fate)
            }
            Node::Cbs | Node::Management(..) => match read_request(&arrived.payload) {
                Ok(request) => {
                    self.confirm(
                        arrived,
                        DeliveryState::Accepted(Accepted {}),
                        Fate::NOW,
                        around.output,
                    )?;
                    answer(node, &request, around)?
                }
                Err(error) => {
                    let refusal = Refusal::new(
                        "amqp:decode-error",
                        format!("The request is not valid AMQP: {error}."),
                    );
                    self.confirm(arrived, outcome::refusal(&refusal), Fate::NOW, around.output)?;
                    None
                }
            },
        };
        if top_up {
            self.send_flow(around.output, Some(handle))?;
        }
        Ok(effect)
    }

    fn confirm(
        &self,
        arrived: &Arrived,
        state: DeliveryState,
        fate: Fate,
        output: &mut Output,
    ) -> Result<(), codec::Error> {
        let Fate::Answer { after } = fate else {
            return Ok(());
        };
        if arrived.settled {
            return Ok(());
        }
        let disposition = TypedDisposition {
            role: Role::Receiver,
            first: arrived.delivery_id,
            last: Some(arrived.delivery_id),
            settled: true,
            state: Some(state),
            batchable: false,
        };
        output.send_later(self.channel, &Performative::Disposition(disposition), after)
    }
}

fn read_request(payload: &Bytes) -> Result<Request, codec::Error> {
    Request::parse(&Message::parse(payload, Uuid::new_v4())?)
}

fn answer(node: Node, request: &Request, around: &mut Surroundings<'_>) -> Result<Option<Effect>, Error> {
    let (response, dialect) = match &node {
        Node::Management(queue, part) => (
            management::handle(request, around.broker, queue, *part, around.now),
            Dialect::Management,
        ),
        Node::Cbs | Node::Messages(..) => (
            cbs::handle(request, around.grants, around.keys, around.broker, around.now),
            Dialect::Cbs,
        ),
    };
    if response.status >= 400 {
        tracing::debug!(
            operation = request.operation,
            status = response.status,
            response.description,
            "request refused"
        );
    }
    let Fate::Answer { after } = response.fate else {
        return Ok(Effect::of(response.fate));
    };
    let payload = request.answer(response, dialect)?;
    let reply = Reply {
        node,
        reply_to: request.reply_to.clone(),
        payload,
    };
    Ok(Some(Effect::Reply(reply, after)))
}

impl Incoming {
    /// Puts the frames of a delivery together; `None` while more are to come. Of a delivery that is too large only
    /// the size is kept.
    fn collect(&mut self, transfer: &Transfer, payload: Bytes) -> Result<Option<Arrived>, Error> {
        if transfer.aborted {
            self.partial = None;
            return Ok(None);
        }
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => Partial {
                delivery_id: transfer.delivery_id.ok_or_else(|| {
                    Error::Session(Refusal::new(
                        "amqp:invalid-field",
                        "The first transfer of a delivery has no delivery-id.",
                    ))
                })?,
                format: transfer.message_format.unwrap_or(0),
                settled: false,
                size: 0,
                payload: BytesMut::new(),
            },
        };
        partial.settled |= transfer.settled.unwrap_or(false);
        let first = partial.size == 0;
        partial.size += payload.len() as u64;
        let too_large = partial.size > self.max_message_size;
        if too_large {
            partial.payload.clear();
        } else if transfer.more || !first {
            partial.payload.extend_from_slice(&payload);
        }
        if transfer.more {
            self.partial = Some(partial);
            return Ok(None);
        }
        Ok(Some(Arrived {
            delivery_id: partial.delivery_id,
            format: partial.format,
            settled: partial.settled,
            size: partial.size,
            // The usual case, one frame, is not copied.
            payload: if first && !too_large {
                payload
            } else {
                partial.payload.freeze()
            },
        }))
    }
}
