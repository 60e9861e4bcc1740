//! One source of tokens for everything that a process talks to.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::{Error, ErrorKind};
use secrecy::SecretString;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::settings::{ConfigurationError, Settings};
use crate::slot::{Look, NoToken, Slot};

/// The scope of tokens for Azure Database for PostgreSQL, where the token is the password:
/// <https://learn.microsoft.com/azure/postgresql/flexible-server/how-to-configure-sign-in-azure-ad-authentication>.
pub const POSTGRES_SCOPE: &str = "https://ossrdbms-aad.database.windows.net/.default";

/// How long one request for a token may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a caller waits for a newer token when the one at hand still serves.
const PATIENCE_WITH_A_TOKEN: Duration = Duration::from_secs(2);

/// The process's identity. Cheap to clone; clones share their tokens.
///
/// For each scope one token is kept and renewed five minutes before its end, or when a fifth of a shorter life
/// is left. One request at a time is under way for a scope, and it goes on when its caller has given up. A
/// failure is logged once, retried with growing random pauses, and told by [`Identity::health`].
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    client_id: String,
    credential: Arc<dyn TokenCredential>,
    patience: Duration,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

impl Identity {
    /// Makes it. Nothing is read or sent yet.
    ///
    /// # Errors
    /// Says which part of the settings cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, ConfigurationError> {
        Ok(Self(Arc::new(Inner {
            client_id: settings.client_id()?.to_owned(),
            credential: settings.credential()?,
            patience: settings.patience,
            slots: Mutex::default(),
        })))
    }

    /// Who this is: the managed identity's client id.
    pub fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// A token for the scope, waited for as long as the settings say.
    ///
    /// # Errors
    /// [`NoToken`]: at once when it is refused, else when the patience has ended.
    pub async fn token(&self, scope: &str) -> Result<AccessToken, NoToken> {
        let slot = self.slot(scope);
        let deadline = Instant::now() + self.0.patience;
        loop {
            match slot.look(OffsetDateTime::now_utc()) {
                Look::Serves(token) => return Ok(token),
                Look::Due(token) => {
                    let renewed = timeout(PATIENCE_WITH_A_TOKEN, self.renew(&slot)).await;
                    let newest = match (renewed, slot.look(OffsetDateTime::now_utc())) {
                        (Ok(()), Look::Serves(newest) | Look::Due(newest)) => newest,
                        _ => token,
                    };
                    return Ok(newest);
                }
                Look::Empty => self.renew(&slot).await,
                Look::Failed(error, retry_at) => {
                    if error.is_refused() || retry_at > deadline {
                        return Err(error);
                    }
                    tokio::time::sleep_until(retry_at).await;
                }
            }
        }
    }

    /// The scope's token as a password that changes: none until the first is there, then always one that
    /// serves, for as long as somebody holds the receiver. To be called within a Tokio runtime.
    pub fn passwords(&self, scope: &'static str) -> watch::Receiver<Option<SecretString>> {
        let (passwords, receiver) = watch::channel(None);
        let identity = self.clone();
        tokio::spawn(async move {
            let slot = identity.slot(scope);
            let keep = async {
                let mut latest: Option<OffsetDateTime> = None;
                loop {
                    if let Ok(token) = identity.token(scope).await
                        && latest != Some(token.expires_on)
                    {
                        latest = Some(token.expires_on);
                        passwords.send_replace(Some(token.token.secret().into()));
                    }
                    tokio::time::sleep(slot.pause(OffsetDateTime::now_utc())).await;
                }
            };
            tokio::select! {
                () = passwords.closed() => {}
                () = keep => {}
            }
        });
        receiver
    }

    /// Whether every token that was asked for is there.
    ///
    /// # Errors
    /// The first that is not.
    pub fn health(&self) -> Result<(), NoToken> {
        let slots: Vec<_> = self.slots().values().cloned().collect();
        let now = OffsetDateTime::now_utc();
        slots
            .iter()
            .find_map(|slot| slot.trouble(now))
            .map_or(Ok(()), Err)
    }

    /// For how many scopes the latest request has failed.
    fn failing(&self) -> usize {
        self.slots().values().filter(|slot| slot.is_failing()).count()
    }

    fn slot(&self, scope: &str) -> Arc<Slot> {
        let mut slots = self.slots();
        let slot = slots
            .entry(scope.to_owned())
            .or_insert_with(|| Arc::new(Slot::new(scope)));
        Arc::clone(slot)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        // no code panics while it holds the lock
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a token unless somebody has just done so. It is a task of its own: a caller who gives up must
    /// not make the next one begin again.
    async fn renew(&self, slot: &Arc<Slot>) {
        let (identity, slot) = (self.clone(), Arc::clone(slot));
        let task = tokio::spawn(async move {
            let _flight = slot.flight.lock().await;
            if matches!(slot.look(OffsetDateTime::now_utc()), Look::Due(_) | Look::Empty) {
                identity.ask(&slot).await;
            }
        });
        if let Err(error) = task.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a request for a token broke off"
            );
        }
    }

    async fn ask(&self, slot: &Slot) {
        let scopes = [slot.scope.as_str()];
        let request = self.0.credential.get_token(&scopes, None);
        let outcome = timeout(REQUEST_TIMEOUT, request).await.unwrap_or_else(|_| {
            Err(Error::with_message(
                ErrorKind::Io,
                format!(
                    "the token service gave no answer within {} s",
                    REQUEST_TIMEOUT.as_secs()
                ),
            ))
        });
        let outcome = outcome
            .and_then(|token| match token.expires_on > OffsetDateTime::now_utc() {
                true => Ok(token),
                false => Err(Error::with_message(
                    ErrorKind::Credential,
                    "the token service gave a token that has ended already",
                )),
            })
            .map_err(|source| NoToken {
                client_id: self.0.client_id.clone(),
                scope: slot.scope.clone(),
                source: Arc::new(source),
            });
        let told = outcome
            .as_ref()
            .map(|token| token.expires_on)
            .map_err(Clone::clone);
        let before = self.failing();
        slot.settle(outcome, OffsetDateTime::now_utc());
        // one refusal concerns all scopes: it is told once, and its end once
        let news = (before == 0) != (self.failing() == 0);
        match told {
            Ok(expires_on) if news => tracing::info!(
                identity = self.0.client_id,
                scope = slot.scope,
                %expires_on,
                "there are tokens again"
            ),
            Ok(expires_on) => tracing::debug!(scope = slot.scope, %expires_on, "took a token"),
            Err(error) if news => tracing::warn!(
                identity = self.0.client_id,
                scope = slot.scope,
                error = chain(&error),
                "no token; trying again. `operator doctor` says what is missing"
            ),
            Err(error) => tracing::debug!(scope = slot.scope, error = chain(&error), "still no token"),
        }
    }
}

/// The error and its causes in one line; a cause that its effect quotes already is left out.
fn chain(error: &dyn std::error::Error) -> String {
    let one_line =
        |error: &dyn std::error::Error| error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = one_line(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = one_line(error);
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[async_trait::async_trait]
impl TokenCredential for Identity {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        // a token is for one resource; its scopes go by one request
        self.token(&scopes.join(" ")).await.map_err(|error| {
            let text = chain(&error);
            Error::with_error(ErrorKind::Credential, error, text)
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.0.client_id).finish()
    }
}
