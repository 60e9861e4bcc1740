//! What goes out to receivers: messages from queues, and answers to requests.

use fe2o3_amqp_types::{definitions::Handle, performatives::Transfer};
use serde_bytes::ByteBuf;
use uuid::Uuid;

use super::{Effect, Error, Node, Session, Surroundings, Unsettled};
use crate::{
    connection::{
        link::Link,
        output::{Output, transfer_frames},
    },
    queue::{Delivery, ReceiveMode},
};

impl Session {
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
                let received = around.broker.receive(&queue, part, mode, around.now);
                let received = received.unwrap_or_else(|refusal| {
                    // A queue deleted just now: its links are about to be detached.
                    tracing::warn!(%queue, %refusal, "no message could be taken from a queue");
                    None
                });
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

    pub(super) fn flush_waiting(&mut self, output: &mut Output) {
        while self.remote_window > 0
            && let Some(frame) = self.waiting.pop_front()
        {
            output.append(&frame);
            self.remote_window -= 1;
            self.next_outgoing_id = self.next_outgoing_id.wrapping_add(1);
        }
    }
}
