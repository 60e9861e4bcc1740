//! The user delegation key: what signs URLs when we are logged in by Entra ID and have no account key.
//! <https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas>

use std::time::Duration;

use azure_storage_blob::BlobServiceClient;
use azure_storage_blob::models::KeyInfo;
use azure_storage_common::models::UserDelegationKey;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::error::ServiceFailure;

/// How long a key is asked for. The service's limit is 7 days; hours are enough, and a leaked key ends
/// sooner.
const KEY_LIFE: Duration = Duration::from_secs(6 * 60 * 60);
/// A key begins so much before now, for clocks that are behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// A URL ends with its key, so a key is renewed while it still outlives any new URL by so much.
const RENEW_BEFORE: Duration = Duration::from_secs(15 * 60);

/// The key of the moment, fetched when it is first needed and renewed in time.
#[derive(Default)]
pub(crate) struct DelegationKeys(Mutex<Option<UserDelegationKey>>);

impl DelegationKeys {
    /// A key that outlives `url_expiry`. Callers at one time share one fetch.
    pub(crate) async fn key(
        &self,
        service: &BlobServiceClient,
        now: OffsetDateTime,
        url_expiry: OffsetDateTime,
    ) -> Result<UserDelegationKey, ServiceFailure> {
        let mut held = self.0.lock().await;
        if let Some(key) = held.as_ref().filter(|key| serves(key, url_expiry)) {
            return Ok(key.clone());
        }
        let request = KeyInfo {
            start: Some(now - CLOCK_SKEW),
            expiry: Some(now + KEY_LIFE),
            ..KeyInfo::default()
        };
        let key = service
            .get_user_delegation_key(request.try_into()?, None)
            .await?
            .into_model()?;
        tracing::debug!(expires_at = ?key.signed_expiry, "took a user delegation key");
        *held = Some(key.clone());
        Ok(key)
    }
}

fn serves(key: &UserDelegationKey, url_expiry: OffsetDateTime) -> bool {
    key.signed_expiry
        .is_some_and(|end| end >= url_expiry + RENEW_BEFORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_serves_while_it_outlives_the_url_by_a_quarter_of_an_hour() {
        let end = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let key = UserDelegationKey {
            signed_expiry: Some(end),
            ..UserDelegationKey::default()
        };
        assert!(serves(&key, end - Duration::from_secs(900)));
        assert!(!serves(&key, end - Duration::from_secs(899)));
        assert!(!serves(&UserDelegationKey::default(), end));
    }
}
