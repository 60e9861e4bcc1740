//! Attaching links: who may, to what, and what the answer says.

use std::collections::VecDeque;

use fe2o3_amqp_types::{
    definitions::{Handle, Role, SenderSettleMode},
    messaging::{Source, TargetArchetype},
    performatives::{Attach, Performative},
};
use serde_amqp::{
    Value,
    primitives::{OrderedMap, Symbol},
};

use super::{Error, Session, Surroundings};
use crate::{
    broker::Refusal,
    connection::link::{Incoming, Link, Node, Outgoing, SENDER_CREDIT},
    queue::{Address, QueueName, QueueSettings, ReceiveMode},
};

/// However large single messages may be, the service takes no larger batch:
/// <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-premium-messaging#large-messages-support>.
const MAX_BATCH_SIZE: u64 = 1 << 20;

impl Session {
    /// Takes an `attach`, and answers with one, followed by a detach when the link is refused.
    pub fn on_attach(&mut self, attach: Attach, around: &mut Surroundings<'_>) -> Result<(), Error> {
        let handle = attach.handle.0;
        if handle > super::HANDLE_MAX {
            return Err(Error::Session(Refusal::new(
                "amqp:not-allowed",
                "The handle is above the agreed handle-max.",
            )));
        }
        if self.links.contains_key(&handle) {
            return Err(Error::Session(Refusal::new(
                "amqp:session:handle-in-use",
                "The handle is in use.",
            )));
        }
        let source = attach.source.as_deref();
        let target = match attach.target.as_deref() {
            Some(TargetArchetype::Target(target)) => target.address.clone(),
            None => None,
        };
        let address = match attach.role {
            Role::Sender => target.clone(),
            Role::Receiver => source.and_then(|source| source.address.clone()),
        };
        match resolve(address, around) {
            Ok((node, settings)) => self.accept(&attach, target, node, &settings, around),
            Err(refusal) => {
                tracing::debug!(link = attach.name, %refusal, "link refused");
                self.refuse(attach, &refusal, around)
            }
        }
    }

    fn accept(
        &mut self,
        attach: &Attach,
        target: Option<String>,
        node: Node,
        settings: &QueueSettings,
        around: &mut Surroundings<'_>,
    ) -> Result<(), Error> {
        let handle = attach.handle.0;
        let answer = answer_to(attach, settings.max_message_size);
        around.output.send(self.channel, &Performative::Attach(answer))?;
        match attach.role {
            Role::Sender => {
                let link = Incoming {
                    node,
                    max_message_size: settings.max_message_size,
                    delivery_count: attach.initial_delivery_count.unwrap_or(0),
                    credit: SENDER_CREDIT,
                    partial: None,
                };
                self.links.insert(handle, Link::Incoming(link));
                self.send_flow(around.output, Some(handle))?;
            }
            Role::Receiver => {
                if let Node::Messages(queue, _) = &node {
                    around.broker.watch(queue, around.connection, around.wake);
                }
                let mode = match attach.snd_settle_mode {
                    SenderSettleMode::Settled => ReceiveMode::ReceiveAndDelete,
                    _ => ReceiveMode::PeekLock,
                };
                let link = Outgoing {
                    node,
                    mode,
                    target,
                    delivery_count: 0,
                    credit: 0,
                    drain: false,
                    replies: VecDeque::new(),
                };
                self.links.insert(handle, Link::Outgoing(link));
            }
        }
        Ok(())
    }

    /// A refused link is attached without its terminus, then detached with the reason.
    fn refuse(
        &mut self,
        attach: Attach,
        refusal: &Refusal,
        around: &mut Surroundings<'_>,
    ) -> Result<(), Error> {
        let handle = attach.handle.0;
        let mut answer = answer_to(&attach, QueueSettings::default().max_message_size);
        match attach.role {
            Role::Sender => answer.target = None,
            Role::Receiver => answer.source = None,
        }
        around.output.send(self.channel, &Performative::Attach(answer))?;
        self.send_detach(handle, refusal, around.output)?;
        Ok(())
    }
}

/// What an address names, when the client may use it.
fn resolve(address: Option<String>, around: &Surroundings<'_>) -> Result<(Node, QueueSettings), Refusal> {
    let address = address.ok_or_else(|| Refusal::new("amqp:invalid-field", "The link names no address."))?;
    let not_found = |_| {
        Refusal::new(
            "amqp:not-found",
            format!("The messaging entity '{address}' could not be found."),
        )
    };
    let node = match Address::parse(&address).map_err(not_found)? {
        Address::Cbs => return Ok((Node::Cbs, QueueSettings::default())),
        Address::Messages(queue, part) => Node::Messages(queue, part),
        Address::Management(queue, part) => Node::Management(queue, part),
    };
    let queue = node.queue().cloned();
    let queue: QueueName = queue.ok_or_else(|| Refusal::new("amqp:not-found", "The link names no queue."))?;
    if !around.grants.allow(&queue, around.now) {
        return Err(Refusal::new(
            "amqp:unauthorized-access",
            format!("Unauthorized access. Put a token for '{queue}' to $cbs first."),
        ));
    }
    let settings = around.broker.attach(&queue)?;
    Ok((node, settings))
}

fn answer_to(attach: &Attach, max_message_size: u64) -> Attach {
    let receives = attach.role == Role::Receiver;
    Attach {
        name: attach.name.clone(),
        handle: Handle(attach.handle.0),
        role: if receives { Role::Sender } else { Role::Receiver },
        snd_settle_mode: attach.snd_settle_mode.clone(),
        rcv_settle_mode: attach.rcv_settle_mode.clone(),
        source: attach.source.clone().or_else(|| Some(Box::<Source>::default())),
        target: attach
            .target
            .clone()
            .or_else(|| Some(Box::new(TargetArchetype::Target(Default::default())))),
        unsettled: None,
        incomplete_unsettled: false,
        // Without it Python detaches.
        initial_delivery_count: receives.then_some(0),
        // Never zero and never absent: Go then takes every message for too large.
        max_message_size: Some(max_message_size),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: Some(OrderedMap::from_iter([(
            Symbol::from("com.microsoft:max-message-batch-size"),
            Value::Ulong(max_message_size.min(MAX_BATCH_SIZE)),
        )])),
    }
}
