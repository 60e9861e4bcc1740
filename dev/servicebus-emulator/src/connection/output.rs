//! What goes out on a connection. Bytes pass three stations: written in this turn, waiting until the store
//! has what they depend on, and ready for the socket. Fault switches may hold some back for a while.

use std::{collections::VecDeque, time::Duration};

use bytes::BytesMut;
use fe2o3_amqp_types::performatives::Performative;
use tokio::time::Instant;

use crate::{
    codec,
    frame::{self, FRAME_HEADER, Layer},
};

/// With this many bytes waiting, no more is read and no more messages are taken from queues.
const HIGH_WATER: usize = 1 << 20;

#[derive(Debug, Default)]
pub struct Output {
    turn: BytesMut,
    /// Bytes with the position in the journal that must be safe before they go out.
    staged: VecDeque<(u64, BytesMut)>,
    staged_bytes: usize,
    ready: BytesMut,
    held: Vec<(Instant, BytesMut)>,
}

impl Output {
    /// Writes a frame.
    pub fn send(&mut self, channel: u16, performative: &Performative) -> Result<(), codec::Error> {
        tracing::trace!(channel, ?performative, "sending");
        frame::write_performative(&mut self.turn, channel, performative)
    }

    /// Writes a frame, `after` from now.
    pub fn send_later(
        &mut self,
        channel: u16,
        performative: &Performative,
        after: Duration,
    ) -> Result<(), codec::Error> {
        if after.is_zero() {
            return self.send(channel, performative);
        }
        let mut frame = BytesMut::new();
        frame::write_performative(&mut frame, channel, performative)?;
        self.held.push((Instant::now() + after, frame));
        Ok(())
    }

    /// Appends a frame that is already encoded.
    pub fn append(&mut self, frame: &[u8]) {
        self.turn.extend_from_slice(frame);
    }

    pub fn keep_alive(&mut self) {
        frame::write_keep_alive(&mut self.turn);
    }

    /// Ends a turn: what it wrote waits until `position` is safe.
    pub fn stage(&mut self, position: u64) {
        if !self.turn.is_empty() {
            self.staged_bytes += self.turn.len();
            self.staged.push_back((position, self.turn.split()));
        }
    }

    /// Lets out what waited for `position` or less.
    pub fn release(&mut self, position: u64) {
        while let Some((_, bytes)) = self.staged.pop_front_if(|(needed, _)| *needed <= position) {
            self.staged_bytes -= bytes.len();
            if self.ready.is_empty() {
                self.ready = bytes
            } else {
                self.ready.extend_from_slice(&bytes)
            }
        }
    }

    /// Lets go of what was held back until now.
    pub fn unhold(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.held = later;
        let due: Vec<_> = due;
        for (_, frame) in due {
            self.turn.extend_from_slice(&frame);
        }
    }

    /// When [`Output::unhold`] has something to do next.
    pub fn next_due(&self) -> Option<Instant> {
        self.held.iter().map(|(at, _)| *at).min()
    }

    /// Throws away all that is not yet on the wire.
    pub fn discard(&mut self) {
        *self = Self::default();
    }

    pub fn ready(&mut self) -> &mut BytesMut {
        &mut self.ready
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.turn.len() + self.staged_bytes + self.ready.len() > HIGH_WATER
    }

    /// Whether nothing at all is left to write, held-back frames apart.
    pub fn is_flushed(&self) -> bool {
        self.turn.is_empty() && self.staged.is_empty() && self.ready.is_empty()
    }
}

/// Splits a delivery over as many transfer frames as the peer's frame size asks for.
pub fn transfer_frames(
    channel: u16,
    first: fe2o3_amqp_types::performatives::Transfer,
    payload: &[u8],
    max_frame_size: usize,
) -> Result<Vec<BytesMut>, codec::Error> {
    let mut frames = Vec::new();
    let mut rest = payload;
    let mut transfer = first;
    loop {
        transfer.more = true;
        let overhead = FRAME_HEADER + codec::encode(&transfer)?.len();
        let room = max_frame_size.saturating_sub(overhead).max(1);
        let (chunk, after) = rest.split_at(room.min(rest.len()));
        transfer.more = !after.is_empty();
        let mut frame = BytesMut::new();
        frame::write(&mut frame, Layer::Amqp, channel, &transfer, chunk)?;
        frames.push(frame);
        if after.is_empty() {
            return Ok(frames);
        }
        rest = after;
        // Only the first frame names the delivery.
        transfer.delivery_id = None;
        transfer.delivery_tag = None;
        transfer.message_format = None;
    }
}
