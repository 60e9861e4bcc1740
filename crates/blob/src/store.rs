//! The container and its blobs.

pub mod checks;

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::headers::HeaderName;
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientDownloadOptions, BlobClientGetPropertiesResultHeaders,
    BlobContainerClientListBlobsOptions, BlobItem, ListBlobsIncludeItem,
};
use azure_storage_blob::{
    BlobClient, BlobContainerClient, BlobServiceClient, BlobServiceClientOptions, BlockBlobClient,
};
use azure_storage_sas::{SasBuilder, SasProtocol};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use time::OffsetDateTime;
use url::Url;

use crate::config::{BlobConfig, ConfigurationError, Credential};
use crate::connection_string::ConnectionString;
use crate::delegation::DelegationKeys;
use crate::error::{Error, ServiceFailure};
use crate::facts::BlobFacts;
use crate::metadata::Metadata;
use crate::retry::RetryProfile;
use crate::service_sas::ReadSas;
use crate::shared_key::SharedKey;
use crate::signed_url::{SignedUrl, URL_TTL_MAX};
use crate::transport::{client_options, http_client};
use crate::writer::{BlobWriter, WriterOptions};

/// What a download is cut into. One part is held at a time.
const READ_BYTES: NonZeroUsize = match NonZeroUsize::new(4 * 1024 * 1024) {
    Some(bytes) => bytes,
    None => NonZeroUsize::MIN,
};
/// How often a delete looks again when the blob changed under it.
const DELETE_TRIES: u32 = 5;

/// One container of a storage account. Cheap to clone; clones share connections and keys.
#[derive(Clone)]
pub struct BlobStore(Arc<Inner>);

struct Inner {
    service: BlobServiceClient,
    container: BlobContainerClient,
    container_name: String,
    account: String,
    signer: Signer,
    public_endpoint: Url,
    retry: RetryProfile,
}

enum Signer {
    AccountKey(Secret),
    Delegation(DelegationKeys),
}

/// A blob's content on its way.
pub struct BlobContent {
    /// The blob that is read.
    pub facts: BlobFacts,
    /// Its stored bytes, in order and never unpacked. All of one version: a blob that is replaced
    /// meanwhile ends the stream with an error.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

impl BlobStore {
    /// Makes the client. Nothing is sent yet.
    ///
    /// # Errors
    /// Says which part of the configuration cannot be used.
    pub fn new(config: BlobConfig) -> Result<Self, ConfigurationError> {
        validate_container(&config.container)?;
        let (endpoint, account, login) = match &config.credential {
            Credential::ConnectionString(text) => {
                let parsed = ConnectionString::parse(text)?;
                (parsed.endpoint, parsed.account, Some(parsed.key))
            }
            Credential::Token { endpoint, .. } => {
                if endpoint.scheme() != "https" {
                    return Err(refuse(endpoint, "a token is sent there, so it must be https"));
                }
                (endpoint.clone(), account_of(endpoint)?, None)
            }
        };
        let public_endpoint = config.public_endpoint.clone().unwrap_or_else(|| endpoint.clone());
        for url in [&endpoint, &public_endpoint] {
            if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
                return Err(refuse(url, "it must be an http or https URL"));
            }
        }
        let client = http_client(&config, endpoint.scheme() == "https")?;
        let mut options = client_options(client, config.retry);
        let token: Option<Arc<dyn TokenCredential>> = match &config.credential {
            Credential::ConnectionString(_) => None,
            Credential::Token { credential, .. } => Some(Arc::clone(credential)),
        };
        let signer = match login {
            None => Signer::Delegation(DelegationKeys::default()),
            Some(key) => {
                let policy = SharedKey {
                    account: account.clone(),
                    key: key.clone(),
                };
                options.per_try_policies.push(Arc::new(policy));
                Signer::AccountKey(key)
            }
        };
        let options = BlobServiceClientOptions {
            client_options: options,
            ..BlobServiceClientOptions::default()
        };
        let service =
            BlobServiceClient::new(endpoint, token, Some(options)).map_err(ConfigurationError::Client)?;
        Ok(Self(Arc::new(Inner {
            container: service.blob_container_client(&config.container),
            service,
            container_name: config.container,
            account,
            signer,
            public_endpoint,
            retry: config.retry,
        })))
    }

    /// The container's name.
    pub fn container(&self) -> &str {
        &self.0.container_name
    }

    /// Makes the container when it is not there. Looks first, since an identity that may write blobs
    /// often may not make containers.
    ///
    /// # Errors
    /// [`Error::EnsureContainer`].
    pub async fn ensure_container(&self) -> Result<(), Error> {
        let failed = |source| Error::EnsureContainer {
            container: self.container().to_owned(),
            source,
        };
        let look = self
            .within(async { self.0.container.get_properties(None).await.map(drop) })
            .await;
        match look {
            Err(failure) if failure.status() == Some(404) => {}
            other => return other.map_err(failed),
        }
        let create = self
            .within(async { self.0.container.create(None).await.map(drop) })
            .await;
        match create {
            Err(failure) if failure.code() == Some("ContainerAlreadyExists") => Ok(()),
            other => other.map_err(failed),
        }
    }

    /// A writer of a new blob. Nothing is sent before the first block is full or
    /// [`BlobWriter::commit`] is called, and nothing is visible before that has succeeded.
    pub fn writer(&self, name: &str, options: WriterOptions) -> BlobWriter {
        BlobWriter::new(self.clone(), name.to_owned(), options)
    }

    /// What the service says about the committed blob; none when there is none.
    ///
    /// # Errors
    /// [`Error::Facts`]; a missing container is one.
    pub async fn facts(&self, name: &str) -> Result<Option<BlobFacts>, Error> {
        let client = self.blob(name);
        let answer = self.within(async { client.get_properties(None).await }).await;
        let failed = |source| Error::Facts {
            blob: name.to_owned(),
            source,
        };
        let answer = match answer {
            Err(failure) if is_absent(&failure) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let read = || -> azure_core::Result<BlobFacts> {
            Ok(BlobFacts {
                name: name.to_owned(),
                bytes: answer.content_length()?.unwrap_or_default(),
                etag: answer.etag()?.map(|etag| etag.to_string()).unwrap_or_default(),
                content_type: answer.content_type()?,
                content_encoding: answer.content_encoding()?,
                metadata: Metadata::received(answer.metadata()?),
            })
        };
        read().map(Some).map_err(|error| failed(error.into()))
    }

    /// Deletes the blob, in the version that was looked at and no other; says whether there was one.
    ///
    /// Where no blob is committed, blocks of dead attempts are deleted as far as the service does so. An
    /// attempt that is still running may commit afterwards: stop it first, and look again later.
    ///
    /// # Errors
    /// [`Error::Delete`] or [`Error::Facts`].
    pub async fn delete(&self, name: &str) -> Result<bool, Error> {
        let client = self.blob(name);
        let mut tries = 0;
        loop {
            tries += 1;
            let facts = self.facts_for_delete(name).await?;
            let options = BlobClientDeleteOptions {
                if_match: facts.as_ref().map(|facts| facts.etag.clone().into()),
                ..BlobClientDeleteOptions::default()
            };
            let answer = self
                .within(async { client.delete(Some(options)).await.map(drop) })
                .await;
            match answer {
                Ok(()) => return Ok(facts.is_some()),
                Err(failure) if failure.status() == Some(404) => return Ok(false),
                Err(failure) if failure.status() == Some(412) && tries < DELETE_TRIES => {}
                Err(source) => {
                    return Err(Error::Delete {
                        blob: name.to_owned(),
                        source,
                    });
                }
            }
        }
    }

    async fn facts_for_delete(&self, name: &str) -> Result<Option<BlobFacts>, Error> {
        match self.facts(name).await {
            // no container, no blob
            Err(Error::Facts { source, .. }) if source.status() == Some(404) => Ok(None),
            other => other,
        }
    }

    /// The committed blobs, by name; `prefix` narrows them.
    ///
    /// # Errors
    /// [`Error::List`], as the stream's last item.
    pub fn list(
        &self,
        prefix: Option<&str>,
    ) -> impl Stream<Item = Result<BlobFacts, Error>> + Send + 'static {
        let container = self.container().to_owned();
        let failed = move |error: azure_core::Error| Error::List {
            container: container.clone(),
            source: error.into(),
        };
        let options = BlobContainerClientListBlobsOptions {
            include: Some(vec![ListBlobsIncludeItem::Metadata]),
            prefix: prefix.map(str::to_owned),
            ..BlobContainerClientListBlobsOptions::default()
        };
        match self.0.container.list_blobs(Some(options)) {
            Ok(items) => items.map_ok(listed).map_err(failed).boxed(),
            Err(error) => futures::stream::iter([Err(failed(error))]).boxed(),
        }
    }

    /// The blob's stored bytes; none when there is no blob.
    ///
    /// # Errors
    /// [`Error::Read`], here or as the stream's last item.
    pub async fn read(&self, name: &str) -> Result<Option<BlobContent>, Error> {
        let client = self.blob(name);
        let blob = name.to_owned();
        let failed = move |source| Error::Read {
            blob: blob.clone(),
            source,
        };
        let options = BlobClientDownloadOptions {
            parallel: Some(NonZeroUsize::MIN),
            partition_size: Some(READ_BYTES),
            ..BlobClientDownloadOptions::default()
        };
        let answer = self.within(async { client.download(Some(options)).await }).await;
        let answer = match answer {
            Err(failure) if is_absent(&failure) => return Ok(None),
            other => other.map_err(&failed)?,
        };
        // the first answer covers only the first part; the whole is behind the slash of its range
        let whole = answer
            .headers
            .get_optional_str(&HeaderName::from_static("content-range"))
            .and_then(|range| range.rsplit('/').next()?.parse().ok());
        let facts = BlobFacts {
            name: name.to_owned(),
            bytes: whole.or(answer.properties.content_length).unwrap_or_default(),
            etag: answer
                .properties
                .etag
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            content_type: answer.properties.content_type.clone(),
            content_encoding: answer.properties.content_encoding.clone(),
            metadata: Metadata::received(answer.properties.metadata),
        };
        let bytes = answer.body.map_err(move |error| failed(error.into())).boxed();
        Ok(Some(BlobContent { facts, bytes }))
    }

    /// A URL on the public endpoint that reads this one blob and nothing else until `now + ttl`.
    ///
    /// It is not asked whether the blob exists. With an account key nothing is sent; with Entra ID a user
    /// delegation key is fetched now and then.
    ///
    /// # Errors
    /// [`Error::UrlTtl`] over [`URL_TTL_MAX`]; [`Error::DelegationKey`]; [`Error::Sign`].
    pub async fn signed_url(
        &self,
        name: &str,
        now: Timestamp,
        ttl: Duration,
        content_disposition: Option<&str>,
    ) -> Result<SignedUrl, Error> {
        if ttl > URL_TTL_MAX {
            return Err(Error::UrlTtl { limit: URL_TTL_MAX });
        }
        let out_of_range = || Error::UrlTtl { limit: URL_TTL_MAX };
        let now_seconds = now.as_second();
        let ttl_seconds = i64::try_from(ttl.as_secs()).map_err(|_| out_of_range())?;
        let expires_at =
            Timestamp::from_second(now_seconds.saturating_add(ttl_seconds)).map_err(|_| out_of_range())?;
        let failed = |error: azure_core::Error| Error::Sign {
            blob: name.to_owned(),
            source: error.into(),
        };
        let https_only = self.0.public_endpoint.scheme() == "https";
        let disposition = content_disposition.unwrap_or_default();
        let query = match &self.0.signer {
            Signer::AccountKey(key) => {
                let sas = ReadSas {
                    account: &self.0.account,
                    container: self.container(),
                    blob: name,
                    expiry: &expires_at.to_string(),
                    https_only,
                    content_disposition: disposition,
                };
                sas.query(key).map_err(failed)?
            }
            Signer::Delegation(keys) => {
                let time = |at: Timestamp| {
                    OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| out_of_range())
                };
                let (now, expiry) = (time(now)?, time(expires_at)?);
                let key = match tokio::time::timeout(
                    self.0.retry.call_timeout(),
                    keys.key(&self.0.service, now, expiry),
                )
                .await
                {
                    Ok(key) => key,
                    Err(_) => Err(ServiceFailure::timed_out(self.0.retry.call_timeout())),
                }
                .map_err(|source| Error::DelegationKey { source })?;
                let protocol = if https_only {
                    SasProtocol::Https
                } else {
                    SasProtocol::HttpsAndHttp
                };
                let mut sas = SasBuilder::new(self.0.account.clone(), &key, expiry)
                    .map_err(failed)?
                    .protocol(protocol)
                    .blob(self.container(), name)
                    .read();
                if !disposition.is_empty() {
                    sas = sas.content_disposition(disposition);
                }
                sas.build()
            }
        };
        let mut url = self.public_url(name);
        url.set_query(Some(&query));
        Ok(SignedUrl { url, expires_at })
    }

    /// The blob's address on the public endpoint, unsigned.
    pub fn public_url(&self, name: &str) -> Url {
        let mut url = self.0.public_endpoint.clone();
        // `new` has refused URLs that cannot be a base, the only ones without segments
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(self.container()).push(name);
        }
        url
    }

    fn blob(&self, name: &str) -> BlobClient {
        self.0.container.blob_client(name)
    }

    pub(crate) fn block_blob(&self, name: &str) -> BlockBlobClient {
        self.blob(name).block_blob_client()
    }

    /// One call with all its retries, within the profile's limit.
    pub(crate) async fn within<T>(
        &self,
        call: impl Future<Output = azure_core::Result<T>>,
    ) -> Result<T, ServiceFailure> {
        let limit = self.0.retry.call_timeout();
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer.map_err(ServiceFailure::from),
            Err(_) => Err(ServiceFailure::timed_out(limit)),
        }
    }
}

impl fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStore")
            .field("account", &self.0.account)
            .field("container", &self.0.container_name)
            .finish_non_exhaustive()
    }
}

/// No committed blob of that name: staged blocks alone are none. A missing container is something else.
fn is_absent(failure: &ServiceFailure) -> bool {
    failure.status() == Some(404) && failure.code() != Some("ContainerNotFound")
}

fn listed(item: BlobItem) -> BlobFacts {
    let properties = item.properties.unwrap_or_default();
    BlobFacts {
        name: item.name.unwrap_or_default(),
        bytes: properties.content_length.unwrap_or_default(),
        // a listing leaves out the quotes that belong to it (RFC 9110, section 8.8.3)
        etag: properties
            .etag
            .map(|etag| format!("\"{}\"", etag.to_string().trim_matches('"')))
            .unwrap_or_default(),
        content_type: properties.content_type,
        content_encoding: properties.content_encoding,
        metadata: Metadata::received(
            item.metadata
                .and_then(|metadata| metadata.values)
                .unwrap_or_default(),
        ),
    }
}

fn refuse(endpoint: &Url, problem: &'static str) -> ConfigurationError {
    ConfigurationError::Endpoint {
        endpoint: Box::new(endpoint.clone()),
        problem,
    }
}

/// The account in an endpoint: the host's first label, or the path's first segment where the host is an
/// address or a bare name, as with Azurite.
fn account_of(endpoint: &Url) -> Result<String, ConfigurationError> {
    let account = match endpoint.domain() {
        Some(domain) if domain.contains('.') => domain.split('.').next(),
        _ => endpoint.path_segments().and_then(|mut segments| segments.next()),
    };
    account
        .filter(|account| !account.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| refuse(endpoint, "it names no account"))
}

/// <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>
fn validate_container(name: &str) -> Result<(), ConfigurationError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (3..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if fits {
        Ok(())
    } else {
        Err(ConfigurationError::ContainerName(name.to_owned()))
    }
}
