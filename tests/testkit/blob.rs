//! A blob container of the test's own.

use blob::{BlobConfig, BlobFacts, BlobStore, Credential, RetryProfile};
use futures::TryStreamExt as _;
use secrecy::SecretString;

use crate::platform::Platform;

/// The test's container.
pub struct Container {
    /// Its name.
    pub name: String,
    store: BlobStore,
}

impl Container {
    /// Creates it.
    pub async fn create(platform: &Platform, id: &str) -> Self {
        Self::make(platform, &format!("e2e-{id}")).await
    }

    /// Creates one of this name.
    pub async fn make(platform: &Platform, name: &str) -> Self {
        let name = name.to_owned();
        let credential = Credential::ConnectionString(SecretString::from(platform.storage.clone()));
        let mut config = BlobConfig::new(credential, name.clone());
        config.retry = RetryProfile::Interactive;
        let store =
            BlobStore::new(config).unwrap_or_else(|error| panic!("AZURE_STORAGE_CONNECTION_STRING: {error}"));
        store
            .ensure_container()
            .await
            .expect("the storage account makes a container");
        Self { name, store }
    }

    /// What the service says about a blob.
    pub async fn facts(&self, name: &str) -> Option<BlobFacts> {
        self.store.facts(name).await.expect("the storage account answers")
    }

    /// A blob's bytes as stored.
    pub async fn read(&self, name: &str) -> Vec<u8> {
        let content = self.store.read(name).await.expect("the storage account answers");
        let content = content.unwrap_or_else(|| panic!("there is no blob {name}"));
        let chunks: Vec<_> = content.bytes.try_collect().await.expect("the blob can be read");
        chunks.concat()
    }

    /// The names of all committed blobs.
    pub async fn list(&self) -> Vec<String> {
        let blobs: Vec<_> = self
            .store
            .list(None)
            .try_collect()
            .await
            .expect("the container can be listed");
        blobs.into_iter().map(|blob| blob.name).collect()
    }

    /// Removes its blobs. The empty container stays: the product never deletes one, so its client cannot.
    pub async fn empty(self) {
        for name in self.list().await {
            self.store.delete(&name).await.expect("a blob can be deleted");
        }
    }
}
