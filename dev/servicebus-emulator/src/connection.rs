//! One client's connection from its first byte to its last.
//!
//! Here it is opened: SASL, the AMQP headers, both `open`s. Then a task of its own reads frames, and the
//! [`driver`] does the rest.

use std::{sync::Arc, time::Duration};

use fe2o3_amqp_types::performatives::{ChannelMax, MaxFrameSize, Open, Performative};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::mpsc,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    broker::{Broker, Command, ConnectionId},
    codec,
    frame::{self, AMQP_HEADER, Frame, Layer, MAX_FRAME_SIZE},
    keys::Keys,
    sasl,
};

mod driver;
mod link;
mod outcome;
mod output;
mod session;

use driver::Connection;

const CHANNEL_MAX: u16 = 4_999;
/// A client that cannot say what it wants within this time is let go.
const OPENING_TIME: Duration = Duration::from_secs(30);
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
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> Result<(), Error> {
    // Without it settlements wait for the peer's delayed acknowledgements: tens instead of thousands a second.
    stream.set_nodelay(true)?;
    if service.broker.broker_faults().silent_connections {
        return tokio::select! {
            silent = stay_silent(stream) => silent,
            () = ordered_to_end(&mut commands) => Ok(()),
        };
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
    let _reading = AbortOnDropHandle::new(tokio::spawn(read_frames(reader, sender)));
    Connection::new(id, service, identity, &open)
        .run(frames, writer, commands)
        .await
}

async fn stay_silent(mut stream: TcpStream) -> Result<(), Error> {
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

async fn ordered_to_end(commands: &mut mpsc::UnboundedReceiver<Command>) {
    while let Some(Command::DetachLinks { .. }) = commands.recv().await {}
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
