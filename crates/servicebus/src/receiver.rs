//! Receiving under locks, and settling.

use jiff::Timestamp;

use crate::error::Error;
use crate::message::Received;

/// A receiver from one queue, from [`crate::Client::receiver`].
///
/// All methods take `&self`, so that messages can be settled while another task waits for the next.
#[derive(Debug)]
pub struct Receiver {}

/// The place that a received message occupies.
#[derive(Debug)]
pub(crate) struct Held {}

impl Receiver {
    /// The next message; waits for as long as it takes, through any number of reconnections.
    ///
    /// # Errors
    ///
    /// Only those that do not pass by themselves ([`Error::is_retriable`] is false): no such queue, no right,
    /// a closed client. Calling again is allowed; the receiver goes on trying.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no message is lost when the future is dropped.
    pub async fn recv(&self) -> Result<Received, Error> {
        Err(Error::Closed)
    }

    /// Removes the message from the queue.
    ///
    /// # Errors
    ///
    /// [`Error::is_lock_lost`]: the message will come, or has come, again. Retriable errors may be tried again
    /// while the lock lasts.
    pub async fn complete(&self, _message: &Received) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Gives the message back at once, its delivery count one higher.
    ///
    /// # Errors
    ///
    /// As for [`Receiver::complete`].
    pub async fn abandon(&self, _message: &Received) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Moves the message to the queue's dead-letter queue, with a short reason and a longer description.
    ///
    /// # Errors
    ///
    /// As for [`Receiver::complete`].
    pub async fn dead_letter(
        &self,
        _message: &Received,
        _reason: &str,
        _description: &str,
    ) -> Result<(), Error> {
        Err(Error::Closed)
    }

    /// Extends the message's lock by the queue's lock duration from now, and tells until when.
    ///
    /// # Errors
    ///
    /// As for [`Receiver::complete`].
    pub async fn renew_lock(&self, _message: &Received) -> Result<Timestamp, Error> {
        Err(Error::Closed)
    }

    /// Stops receiving and closes the links. Messages that were fetched and not handed out go back to the
    /// queue; those handed out stay locked until settled through another receiver or their lock runs out.
    pub async fn close(self) {}
}
