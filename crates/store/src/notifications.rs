//! LISTEN: hints that something was written.

use sqlx::PgPool;
use sqlx::postgres::PgListener;

/// What woke the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Somebody wrote; the channel says what the text is.
    Payload(String),
    /// The connection was lost and made anew: whatever happened in between was not heard, so look at
    /// everything.
    Missed,
}

/// A subscription to one channel. It keeps one connection of its pool for itself.
///
/// A notification is a hint: a slow poll must stand behind it.
#[derive(Debug)]
pub struct Notifications {
    pool: PgPool,
    channel: &'static str,
    listener: Option<PgListener>,
}

impl Notifications {
    pub(crate) async fn subscribe(pool: &PgPool, channel: &'static str) -> Result<Self, sqlx::Error> {
        let mut notifications = Self {
            pool: pool.clone(),
            channel,
            listener: None,
        };
        notifications.connect().await?;
        Ok(notifications)
    }

    async fn connect(&mut self) -> Result<&mut PgListener, sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(self.channel).await?;
        Ok(self.listener.insert(listener))
    }

    /// Waits for the next hint. After an error the next call connects anew and returns
    /// [`Notification::Missed`]; the caller decides how long to wait before that.
    ///
    /// # Errors
    /// The connection was lost, or can not be made.
    ///
    /// # Cancel safety
    /// Dropping the future loses at most a hint, as a lost connection does.
    pub async fn recv(&mut self) -> Result<Notification, sqlx::Error> {
        let Some(listener) = self.listener.as_mut() else {
            self.connect().await?;
            return Ok(Notification::Missed);
        };
        match listener.try_recv().await {
            Ok(Some(notification)) => Ok(Notification::Payload(notification.payload().to_owned())),
            Ok(None) => Ok(Notification::Missed),
            Err(error) => {
                // the listener itself recovers from some errors only, a reset connection not among them
                self.listener = None;
                Err(error)
            }
        }
    }
}
