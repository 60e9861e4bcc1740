//! The one loop of a connection: frames, room in the socket, news from the store, messages in queues, orders from
//! the admin port, and the clock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fe2o3_amqp_types::performatives::{Begin, Close, End, Open, Performative};
use tokio::{
    io::AsyncWriteExt,
    net::tcp::OwnedWriteHalf,
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    CHANNEL_MAX, Error, READ_AHEAD, Service, outcome,
    output::Output,
    session::{self, Effect, Reply, Session, Surroundings},
};
use crate::{
    broker::{Command, ConnectionId, Refusal},
    cbs::Grants,
    clock::Moment,
    codec,
    frame::{self, Frame, MAX_FRAME_SIZE, MIN_MAX_FRAME_SIZE},
    journal::Progress,
    sasl::Identity,
};

/// How long the last bytes may take.
const CLOSING_TIME: Duration = Duration::from_secs(5);

/// How a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing more is read or written.
    Silent,
    /// Our `close` goes out, and the client's answer to it is waited for: a socket that closes before makes
    /// clients report a broken pipe instead of the error in the `close`.
    Closing,
    /// What is written goes out, then the socket closes.
    Ending,
}

/// An open connection.
pub struct Connection<'a> {
    id: ConnectionId,
    service: &'a Service,
    sessions: BTreeMap<u16, Session>,
    grants: Grants,
    output: Output,
    /// Answers that a fault switch holds back, with the sessions that asked.
    late_replies: Vec<(Instant, u16, Reply)>,
    wake: Arc<Notify>,
    max_frame_size: usize,
    /// How often the client wants to hear from us.
    keep_alive: Option<Duration>,
    phase: Phase,
}

impl<'a> Connection<'a> {
    /// A connection that the client has just opened.
    pub fn new(id: ConnectionId, service: &'a Service, identity: Identity, open: &Open) -> Self {
        let mut grants = Grants::default();
        if identity == Identity::KeyHolder {
            grants.allow_everything();
        }
        Self {
            id,
            service,
            sessions: BTreeMap::new(),
            grants,
            output: Output::default(),
            late_replies: Vec::new(),
            wake: Arc::new(Notify::new()),
            max_frame_size: open.max_frame_size.0.clamp(MIN_MAX_FRAME_SIZE, MAX_FRAME_SIZE) as usize,
            // Before half of what the client waits for at most.
            keep_alive: open
                .idle_time_out
                .filter(|idle| *idle > 0)
                .map(|idle| Duration::from_millis(idle.into()) / 3),
            phase: Phase::Open,
        }
    }

    /// Serves the client until one of the two has had enough.
    pub async fn run(
        &mut self,
        mut frames: mpsc::Receiver<Result<Frame, frame::Error>>,
        mut writer: OwnedWriteHalf,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), Error> {
        let mut progress = self.service.broker.journal().progress();
        let wake = Arc::clone(&self.wake);
        let (mut heard, mut spoke) = (Instant::now(), Instant::now());
        let patience = self.service.idle_time_out * 2;
        let mut ending_since = None;

        loop {
            // A busy client must not keep the other tasks of this thread waiting.
            tokio::task::consume_budget().await;
            let deadline = self.next_deadline(heard + patience, spoke, ending_since);
            let reading = self.phase == Phase::Silent || !self.output.is_full();
            tokio::select! {
                frame = frames.recv(), if reading => {
                    heard = Instant::now();
                    let Some(frame) = frame else { return Ok(()) };
                    self.on_frame(&frame?)?;
                    // What else has come in belongs to the same turn, and to the same write.
                    for _ in 0..READ_AHEAD {
                        if self.output.is_full() { break }
                        let Ok(frame) = frames.try_recv() else { break };
                        self.on_frame(&frame?)?;
                    }
                }
                written = writer.write_buf(self.output.ready()), if self.output.has_ready() && self.phase != Phase::Silent => {
                    written?;
                    spoke = Instant::now();
                }
                changed = progress.changed(), if self.output.has_staged() => {
                    // The writer of the store ends only after everything was written.
                    if changed.is_err() { return Ok(()) }
                }
                Some(command) = commands.recv() => self.on_command(command)?,
                () = wake.notified() => {}
                () = sleep_until(deadline.unwrap_or(heard)), if deadline.is_some() => {}
            }
            self.end_turn(&mut progress, heard + patience, spoke)?;
            if matches!(self.phase, Phase::Closing | Phase::Ending) {
                let since = *ending_since.get_or_insert_with(Instant::now);
                let done = self.phase == Phase::Ending && self.output.is_flushed();
                if done || since.elapsed() > CLOSING_TIME {
                    return Ok(());
                }
            }
        }
    }

    /// When the clock alone is a reason for another turn.
    fn next_deadline(
        &self,
        heard_until: Instant,
        spoke: Instant,
        ending_since: Option<Instant>,
    ) -> Option<Instant> {
        let ending = ending_since.map(|since| since + CLOSING_TIME);
        if self.phase != Phase::Open {
            return ending;
        }
        // While bytes wait for the socket, no sign of life is needed beside them.
        let keep_alive = self
            .keep_alive
            .filter(|_| self.output.is_flushed())
            .map(|every| spoke + every);
        let late = self.late_replies.iter().map(|(due, ..)| *due).min();
        let grants_end = self
            .grants
            .next_end()
            .map(|at| Instant::now() + Moment::now().until(at));
        [
            Some(heard_until),
            keep_alive,
            late,
            self.output.next_due(),
            grants_end,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What every turn ends with, whatever began it.
    fn end_turn(
        &mut self,
        progress: &mut watch::Receiver<Progress>,
        heard_until: Instant,
        spoke: Instant,
    ) -> Result<(), Error> {
        let instant = Instant::now();
        if self.phase == Phase::Open {
            if instant >= heard_until {
                self.close(&Refusal::new(
                    "amqp:connection:forced",
                    "The connection was inactive for too long.",
                ))?;
                // From this client no answer is to be expected.
                self.phase = Phase::Ending;
            }
            self.send_late_replies(instant);
            self.end_lapsed_grants()?;
            self.pump()?;
            if self.keep_alive.is_some_and(|every| instant >= spoke + every) && self.output.is_flushed() {
                self.output.keep_alive();
            }
        }
        self.output.unhold(instant);
        self.output.stage(self.service.broker.journal().position());
        match *progress.borrow_and_update() {
            Progress::Safe(position) => self.output.release(position),
            // What was written is not safe, so nobody may hear of it. The emulator is about to end.
            Progress::Failed => {
                self.output.discard();
                self.phase = Phase::Ending;
            }
        }
        Ok(())
    }

    fn with_session<T>(
        &mut self,
        channel: u16,
        work: impl FnOnce(&mut Session, &mut Surroundings<'_>) -> Result<T, session::Error>,
    ) -> Result<Option<T>, Error> {
        let Some(mut session) = self.sessions.remove(&channel) else {
            // Frames that were under way when the session ended.
            return Ok(None);
        };
        let mut around = self.surroundings();
        match work(&mut session, &mut around) {
            Ok(result) => {
                self.sessions.insert(channel, session);
                Ok(Some(result))
            }
            Err(session::Error::Codec(error)) => Err(error.into()),
            Err(session::Error::Session(refusal)) => {
                session.drop_links(&around);
                let end = End {
                    error: Some(outcome::error(&refusal)),
                };
                around.output.send(channel, &Performative::End(end))?;
                Ok(None)
            }
        }
    }

    fn surroundings(&mut self) -> Surroundings<'_> {
        Surroundings {
            connection: self.id,
            broker: &self.service.broker,
            keys: &self.service.keys,
            grants: &mut self.grants,
            output: &mut self.output,
            wake: &self.wake,
            max_frame_size: self.max_frame_size,
            now: Moment::now(),
        }
    }

    fn on_frame(&mut self, frame: &Frame) -> Result<(), Error> {
        if self.phase == Phase::Closing
            && matches!(serde_amqp::from_slice(&frame.body), Ok(Performative::Close(_)))
        {
            self.phase = Phase::Ending;
        }
        if self.phase != Phase::Open || frame.body.is_empty() {
            return Ok(());
        }
        let channel = frame.channel;
        // Read untyped, because the Go SDK puts string keys where the types want symbols.
        if outcome::is_disposition(&frame.body) {
            let disposition = outcome::Disposition::parse(&frame.body)?;
            tracing::trace!(connection = self.id, channel, ?disposition, "received");
            let effect = self.with_session(channel, |session, around| {
                session.on_disposition(&disposition, around)
            })?;
            return self.on_effect(channel, effect.flatten());
        }
        let performative = serde_amqp::from_slice(&frame.body).map_err(codec::Error::Decode)?;
        tracing::trace!(connection = self.id, channel, ?performative, "received");
        match performative {
            Performative::Begin(begin) => self.on_begin(channel, &begin)?,
            Performative::Attach(attach) => {
                self.with_session(channel, |session, around| session.on_attach(attach, around))?;
            }
            Performative::Flow(flow) => {
                self.with_session(channel, |session, around| session.on_flow(&flow, around))?;
            }
            Performative::Transfer(transfer) => {
                let payload = frame.body.slice(codec::value_length(&frame.body)?..);
                let effect = self.with_session(channel, |session, around| {
                    session.on_transfer(&transfer, payload, around)
                })?;
                self.on_effect(channel, effect.flatten())?;
            }
            Performative::Detach(detach) => {
                self.with_session(channel, |session, around| session.on_detach(&detach, around))?;
            }
            Performative::End(_) => {
                if let Some(mut session) = self.sessions.remove(&channel) {
                    session.drop_links(&self.surroundings());
                    self.output
                        .send(channel, &Performative::End(End { error: None }))?;
                }
            }
            Performative::Close(_) => {
                self.output.send(0, &Performative::Close(Close { error: None }))?;
                self.phase = Phase::Ending;
            }
            Performative::Open(_) => {
                self.close(&Refusal::new(
                    "amqp:not-allowed",
                    "The connection is open already.",
                ))?;
            }
            Performative::Disposition(_) => {}
        }
        Ok(())
    }

    fn on_begin(&mut self, channel: u16, begin: &Begin) -> Result<(), Error> {
        if channel > CHANNEL_MAX || self.sessions.contains_key(&channel) {
            return self.close(&Refusal::new(
                "amqp:not-allowed",
                format!("Channel {channel} cannot begin a session."),
            ));
        }
        match Session::begin(channel, begin, &mut self.output) {
            Ok(session) => {
                self.sessions.insert(channel, session);
                Ok(())
            }
            Err(session::Error::Codec(error)) => Err(error.into()),
            Err(session::Error::Session(refusal)) => self.close(&refusal),
        }
    }

    fn on_effect(&mut self, channel: u16, effect: Option<Effect>) -> Result<(), Error> {
        match effect {
            None => {}
            Some(Effect::Reply(reply, after)) if after.is_zero() => self.route_reply(channel, reply),
            Some(Effect::Reply(reply, after)) => {
                self.late_replies.push((Instant::now() + after, channel, reply))
            }
            Some(Effect::Drop) => {
                self.service.broker.count_dropped();
                self.phase = Phase::Ending;
            }
            Some(Effect::Silence) => {
                self.output.discard();
                self.phase = Phase::Silent;
            }
        }
        Ok(())
    }

    fn send_late_replies(&mut self, now: Instant) {
        for (_, channel, reply) in self
            .late_replies
            .extract_if(.., |(due, ..)| *due <= now)
            .collect::<Vec<_>>()
        {
            self.route_reply(channel, reply);
        }
    }

    /// To the link that the request names; failing that, to the one on the same node in the same session. (For
    /// Python the reply-to is the node itself, in each of several sessions.)
    fn route_reply(&mut self, channel: u16, reply: Reply) {
        let Reply {
            node,
            reply_to,
            payload,
        } = reply;
        let mut undelivered = Some(payload);
        let mut offer = |session: &mut Session, reply_to: Option<&str>| {
            undelivered = undelivered
                .take()
                .and_then(|payload| session.take_reply(&node, reply_to, payload).err());
        };
        if let Some(session) = self.sessions.get_mut(&channel) {
            offer(session, reply_to.as_deref());
        }
        for session in self.sessions.values_mut() {
            offer(session, reply_to.as_deref());
        }
        if let Some(session) = self.sessions.get_mut(&channel) {
            offer(session, None);
        }
        if undelivered.is_some() {
            tracing::warn!(
                connection = self.id,
                reply_to,
                "no link waits for the answer to a request"
            );
        }
    }

    fn on_command(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::DetachLinks { .. } | Command::Close { .. } if self.phase != Phase::Open => Ok(()),
            Command::DetachLinks {
                queue,
                condition,
                description,
            } => {
                let refusal = Refusal {
                    condition,
                    description,
                };
                self.detach_links(&refusal, |node| node.queue() == Some(&queue))
            }
            Command::Close {
                condition,
                description,
            } => self.close(&Refusal {
                condition,
                description,
            }),
            Command::Drop => {
                self.service.broker.count_dropped();
                self.output.discard();
                self.phase = Phase::Ending;
                Ok(())
            }
        }
    }

    fn detach_links(
        &mut self,
        refusal: &Refusal,
        concerned: impl Fn(&session::Node) -> bool,
    ) -> Result<(), Error> {
        let channels: Vec<_> = self.sessions.keys().copied().collect();
        for channel in channels {
            self.with_session(channel, |session, around| {
                session.detach_links(around, refusal, &concerned)
            })?;
        }
        Ok(())
    }

    /// A client that did not renew its token in time loses its links, as in the service.
    fn end_lapsed_grants(&mut self) -> Result<(), Error> {
        let now = Moment::now();
        if !self.grants.forget_ended(now) {
            return Ok(());
        }
        let grants = std::mem::take(&mut self.grants);
        let refusal = Refusal::new("amqp:unauthorized-access", "The token of the link has expired.");
        let ended = self.detach_links(&refusal, |node| {
            node.queue().is_some_and(|queue| !grants.allow(queue, now))
        });
        self.grants = grants;
        ended
    }

    fn pump(&mut self) -> Result<(), Error> {
        let channels: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.has_links())
            .map(|(channel, _)| *channel)
            .collect();
        for channel in channels {
            if self.phase == Phase::Open {
                let effect = self.with_session(channel, |session, around| session.pump(around))?;
                self.on_effect(channel, effect.flatten())?;
            }
        }
        Ok(())
    }

    fn close(&mut self, refusal: &Refusal) -> Result<(), Error> {
        self.output.send(
            0,
            &Performative::Close(Close {
                error: Some(outcome::error(refusal)),
            }),
        )?;
        self.phase = Phase::Closing;
        Ok(())
    }
}
