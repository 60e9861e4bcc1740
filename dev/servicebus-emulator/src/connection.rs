//! One client's connection from its first byte to its last.
//!
//! A task of its own reads frames; the rest is one loop over whatever comes first: a frame, room in the
//! socket, news from the store, a message in a queue, an order from the admin port, or the clock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fe2o3_amqp_types::performatives::{Begin, ChannelMax, Close, End, MaxFrameSize, Open, Performative};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, Command, ConnectionId, Refusal},
    cbs::Grants,
    clock::Moment,
    codec,
    frame::{self, AMQP_HEADER, Frame, Layer, MAX_FRAME_SIZE, MIN_MAX_FRAME_SIZE},
    journal::Progress,
    keys::Keys,
    sasl,
};

mod link;
mod outcome;
mod output;
mod session;

use output::Output;
use session::{Effect, Session, Surroundings};

const CHANNEL_MAX: u16 = 4_999;
/// A client that cannot say what it wants within this time is let go.
const OPENING_TIME: Duration = Duration::from_secs(30);
/// How long the last bytes may take.
const CLOSING_TIME: Duration = Duration::from_secs(5);
/// Frames that the reader may be ahead.
const READ_AHEAD: usize = 64;

/// What every connection is served with.
#[derive(Debug)]
pub struct Service {
    /// The queues.
    pub broker: Arc<Broker>,
    /// Who may come in.
    pub keys: Keys,
    /// A client that is silent for this long is told to keep alive; for twice as long, it is let go.
    pub idle_time_out: Duration,
    /// Ends every connection.
    pub shutdown: CancellationToken,
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the socket failed")]
    Io(#[from] std::io::Error),
    #[error("SASL failed")]
    Sasl(#[from] sasl::Error),
    #[error("failed to read a frame")]
    Frame(#[from] frame::Error),
    #[error("the client began AMQP with the bytes {0:02x?}")]
    Header([u8; 8]),
    #[error("the client took too long to open the connection")]
    Slow,
    #[error("the client left before it had opened the connection")]
    Closed,
    #[error("failed to convert a frame")]
    Codec(#[from] codec::Error),
}

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

/// Serves a connection until it ends. Failures are the client's and go to the log.
pub async fn serve(service: Arc<Service>, stream: TcpStream) {
    let Some((id, commands)) = service.broker.admit() else {
        tracing::debug!("connection refused by a fault switch");
        return;
    };
    let served = tokio::select! {
        served = open_and_run(&service, stream, id, commands) => served,
        () = service.shutdown.cancelled() => Ok(()),
    };
    service.broker.leave(id);
    match served {
        Ok(()) => tracing::debug!(connection = id, "connection ended"),
        Err(error) => {
            tracing::debug!(
                connection = id,
                error = &error as &dyn std::error::Error,
                "connection ended"
            );
        }
    }
}

async fn open_and_run(
    service: &Service,
    mut stream: TcpStream,
    id: ConnectionId,
    commands: mpsc::UnboundedReceiver<Command>,
) -> Result<(), Error> {
    // Without it settlements wait for the peer's delayed acknowledgements: tens instead of thousands a second.
    stream.set_nodelay(true)?;
    if service.broker.broker_faults().silent_connections {
        return stay_silent(stream).await;
    }
    let (identity, open) = timeout(OPENING_TIME, negotiate(&mut stream, service))
        .await
        .map_err(|_| Error::Slow)??;
    tracing::debug!(
        connection = id,
        container = open.container_id,
        "connection opened"
    );

    let (reader, writer) = stream.into_split();
    let (sender, frames) = mpsc::channel(READ_AHEAD);
    let reading = tokio::spawn(read_frames(reader, sender));

    let mut grants = Grants::default();
    if identity == sasl::Identity::KeyHolder {
        grants.allow_everything();
    }
    let mut connection = Connection {
        id,
        service,
        sessions: BTreeMap::new(),
        grants,
        output: Output::default(),
        wake: Arc::new(Notify::new()),
        max_frame_size: open.max_frame_size.0.clamp(MIN_MAX_FRAME_SIZE, MAX_FRAME_SIZE) as usize,
        // Before half of what the client waits for at most.
        keep_alive: open
            .idle_time_out
            .filter(|idle| *idle > 0)
            .map(|idle| Duration::from_millis(idle.into()) / 3),
        phase: Phase::Open,
    };
    let ended = connection.run(frames, writer, commands).await;
    reading.abort();
    ended
}

async fn stay_silent(mut stream: TcpStream) -> Result<(), Error> {
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// SASL, the AMQP headers and both `open`s. Ours go out only after the client's: the JavaScript SDK loses
/// bytes that arrive together with the SASL outcome.
async fn negotiate(stream: &mut TcpStream, service: &Service) -> Result<(sasl::Identity, Open), Error> {
    let identity = sasl::accept(stream, &service.keys).await?;
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    stream.write_all(&AMQP_HEADER).await?;
    if header != AMQP_HEADER {
        return Err(Error::Header(header));
    }
    let first = frame::read(stream, Layer::Amqp, MAX_FRAME_SIZE)
        .await?
        .ok_or(Error::Closed)?;
    let open: Open = serde_amqp::from_slice(&first.body).map_err(codec::Error::Decode)?;
    let answer = Open {
        container_id: "servicebus-emulator".to_owned(),
        hostname: None,
        max_frame_size: MaxFrameSize(MAX_FRAME_SIZE),
        channel_max: ChannelMax(CHANNEL_MAX),
        idle_time_out: u32::try_from(service.idle_time_out.as_millis()).ok(),
        outgoing_locales: None,
        incoming_locales: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    };
    let mut out = bytes::BytesMut::new();
    frame::write_performative(&mut out, 0, &Performative::Open(answer))?;
    stream.write_all(&out).await?;
    Ok((identity, open))
}

/// Reads until the client closes or breaks the framing. The last item says which.
async fn read_frames(reader: OwnedReadHalf, frames: mpsc::Sender<Result<Frame, frame::Error>>) {
    let mut reader = tokio::io::BufReader::with_capacity(MAX_FRAME_SIZE as usize, reader);
    loop {
        let (item, last) = match frame::read(&mut reader, Layer::Amqp, MAX_FRAME_SIZE).await {
            Ok(Some(frame)) => (Ok(frame), false),
            Ok(None) => return,
            Err(error) => (Err(error), true),
        };
        if frames.send(item).await.is_err() || last {
            return;
        }
    }
}

struct Connection<'a> {
    id: ConnectionId,
    service: &'a Service,
    sessions: BTreeMap<u16, Session>,
    grants: Grants,
    output: Output,
    wake: Arc<Notify>,
    max_frame_size: usize,
    /// How often the client wants to hear from us.
    keep_alive: Option<Duration>,
    phase: Phase,
}

impl Connection<'_> {
    async fn run(
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
                () = sleep_until(deadline) => {}
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

    fn next_deadline(&self, heard_until: Instant, spoke: Instant, ending_since: Option<Instant>) -> Instant {
        let grants_end = self
            .grants
            .next_end()
            .map(|at| Instant::now() + Moment::now().until(at));
        [
            self.output.next_due(),
            self.keep_alive.map(|every| spoke + every),
            grants_end,
            ending_since.map(|since| since + CLOSING_TIME),
        ]
        .into_iter()
        .flatten()
        .fold(heard_until, Instant::min)
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
            }
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
            Some(Effect::Reply {
                node,
                reply_to,
                payload,
            }) => self.route_reply(channel, &node, reply_to.as_deref(), payload),
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

    /// To the link that the request names; failing that, to the one on the same node in the same session. (For
    /// Python the reply-to is the node itself, in each of several sessions.)
    fn route_reply(&mut self, channel: u16, node: &session::Node, reply_to: Option<&str>, payload: Vec<u8>) {
        let mut undelivered = Some(payload);
        let mut offer = |session: &mut Session, reply_to: Option<&str>| {
            undelivered = undelivered
                .take()
                .and_then(|payload| session.take_reply(node, reply_to, payload).err());
        };
        if let Some(session) = self.sessions.get_mut(&channel) {
            offer(session, reply_to);
        }
        for session in self.sessions.values_mut() {
            offer(session, reply_to);
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
        if self.phase != Phase::Open && command_keeps_open(&command) {
            return Ok(());
        }
        match command {
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

fn command_keeps_open(command: &Command) -> bool {
    matches!(command, Command::DetachLinks { .. })
}
