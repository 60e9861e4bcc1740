//! Whether the container can be used.

use std::time::Duration;

use azure_core::http::headers::HeaderName;
use checks::Check;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::{BlobStore, Signer, is_absent};
use crate::error::{Error, Refusal, ServiceFailure};
use crate::metadata::Metadata;
use crate::writer::WriterOptions;

/// Names of the checks here.
pub mod names {
    /// Reading a blob's facts, which finds the container.
    pub const READ: &str = "blob read";
    /// Writing a blob.
    pub const WRITE: &str = "blob write";
    /// Deleting a blob.
    pub const DELETE: &str = "blob delete";
    /// Signing a download link; logged in by an identity this takes a delegation key.
    pub const LINK: &str = "download link";
    /// The service's clock.
    pub const CLOCK: &str = "clock of blob storage";
}

/// Built-in roles
/// (<https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/storage>).
const READER: &str = "Storage Blob Data Reader";
const CONTRIBUTOR: &str = "Storage Blob Data Contributor";
const DELEGATOR: &str = "Storage Blob Delegator";

/// The life of a link that nobody gets.
const LINK_LIFE: Duration = Duration::from_secs(60);

/// Asks for the facts of a blob that need not be there: it finds out whether the container is, and whether it
/// may be read.
pub async fn read(store: &BlobStore, blob: &str) -> Check {
    let client = store.blob(blob);
    match store
        .within(async { client.get_properties(None).await.map(drop) })
        .await
    {
        Ok(()) => Check::ok(names::READ, place(store)),
        Err(failure) if is_absent(&failure) => Check::ok(names::READ, place(store)),
        Err(failure) => judge(store, names::READ, READER, &failure),
    }
}

/// Writes a probe blob of this name, reads it back and deletes it.
pub async fn write_and_delete(store: &BlobStore, probe: &str) -> Vec<Check> {
    const CONTENT: &[u8] = b"written and deleted by operator doctor\n";
    let written = async {
        let mut writer = store.writer(probe, WriterOptions::new(1, "text/plain"));
        writer.write(CONTENT).await?;
        writer.commit(Metadata::default()).await
    };
    if let Err(error) = written.await {
        let write = failed(store, names::WRITE, &error);
        let rest =
            [names::READ, names::DELETE].map(|name| Check::not_checked(name, "no probe could be written"));
        return std::iter::once(write).chain(rest).collect();
    }
    let write = Check::ok(names::WRITE, format!("{} to {}", probe, place(store)));
    let read = match store.facts(probe).await {
        Ok(Some(_)) => Check::ok(names::READ, format!("{} from {}", probe, place(store))),
        Ok(None) => Check::unavailable(
            names::READ,
            format!("the probe {probe} was written and is not there"),
            "run it again; if it stays so, look for a lifecycle rule or another program that deletes",
        ),
        Err(error) => failed(store, names::READ, &error),
    };
    let delete = match store.delete(probe).await {
        Ok(_) => Check::ok(names::DELETE, format!("{} from {}", probe, place(store))),
        Err(error) => failed(store, names::DELETE, &error),
    };
    vec![write, read, delete]
}

/// Signs a link that nobody gets.
pub async fn link(store: &BlobStore, now: Timestamp) -> Check {
    match store.signed_url("doctor", now, LINK_LIFE, None).await {
        Ok(_) => Check::ok(
            names::LINK,
            match store.0.signer {
                Signer::AccountKey(_) => "signed with the account's key",
                Signer::Delegation(_) => "signed with a user delegation key",
            },
        ),
        Err(error) => match error.failure() {
            Some(failure) => judge(store, names::LINK, DELEGATOR, failure),
            None => failed(store, names::LINK, &error),
        },
    }
}

/// Compares the service's clock with ours, by the `Date` of an answer.
pub async fn clock(store: &BlobStore) -> Check {
    let sent = Timestamp::now();
    let answer = store
        .within(async { store.0.container.get_properties(None).await })
        .await;
    let received = Timestamp::now();
    let Ok(answer) = answer else {
        return Check::not_checked(names::CLOCK, "blob storage does not tell the time now");
    };
    let date = answer
        .headers()
        .get_optional_str(&HeaderName::from_static("date"))
        .and_then(|date| rfc2822::parse(date).ok());
    match date {
        Some(date) => checks::clock(names::CLOCK, "blob storage", date.timestamp(), sent, received),
        None => Check::not_checked(names::CLOCK, "the answer has no Date"),
    }
}

fn place(store: &BlobStore) -> String {
    format!("container {} of account {}", store.container(), store.0.account)
}

fn failed(store: &BlobStore, name: &'static str, error: &Error) -> Check {
    match error.failure() {
        Some(failure) => judge(store, name, CONTRIBUTOR, failure),
        None => Check::unavailable(name, error.to_string(), "run it again"),
    }
}

/// What a failure says about what is missing.
fn judge(store: &BlobStore, name: &'static str, role: &str, failure: &ServiceFailure) -> Check {
    let (container, account) = (store.container(), &store.0.account);
    if failure.code() == Some("ContainerNotFound") || (failure.status() == Some(404) && name != names::LINK) {
        return Check::missing(
            name,
            format!("account {account} has no container {container}"),
            format!(
                "az storage container create --account-name {account} --name {container} --auth-mode login"
            ),
        );
    }
    if let Some(why) = failure.no_token() {
        return Check::missing(
            name,
            format!("there is no token for account {account}: {why}"),
            "az identity federated-credential create --name <name> --identity-name <identity> --resource-group \
             <resource-group> --issuer <the cluster's OIDC issuer> --subject \
             system:serviceaccount:<namespace>:<service account> --audiences api://AzureADTokenExchange",
        );
    }
    match (&store.0.signer, failure.refusal()) {
        (_, Refusal::Temporary) => Check::unavailable(
            name,
            format!("account {account} does not answer: {failure}"),
            format!(
                "see that it runs and that no NetworkPolicy is between: curl -sI '{}'",
                store.0.service.url().as_str().trim_end_matches('/')
            ),
        ),
        (Signer::AccountKey(_), Refusal::Permanent) => Check::missing(
            name,
            format!("account {account} refuses the account key for container {container}: {failure}"),
            format!(
                "az storage account show-connection-string --name {account} --resource-group <resource-group>; put \
                 it into the Secret as AZURE_STORAGE_CONNECTION_STRING"
            ),
        ),
        (Signer::Delegation(_), Refusal::Permanent) => {
            // a delegation key is the account's, all else the container's
            let scope = if role == DELEGATOR {
                String::new()
            } else {
                format!("/blobServices/default/containers/{container}")
            };
            Check::missing(
                name,
                format!("the identity lacks role '{role}' on account {account}: {failure}"),
                format!(
                    "az role assignment create --assignee <client-id> --role '{role}' --scope /subscriptions/\
                     <subscription>/resourceGroups/<resource-group>/providers/Microsoft.Storage/storageAccounts/\
                     {account}{scope}"
                ),
            )
        }
    }
}
