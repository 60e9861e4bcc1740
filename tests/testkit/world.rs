//! Everything that one test needs, made before it and removed after it, whatever happens in between.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures::FutureExt as _;
use tempfile::TempDir;
use url::Url;
use uuid::Uuid;

use crate::blob::Container;
use crate::broker::Broker;
use crate::cluster::Cluster;
use crate::platform::Platform;
use crate::postgres::Database;
use crate::proxy::Proxy;

/// How long a test may take. Its own waits are shorter; this is for what they have not thought of.
const LIMIT: Duration = Duration::from_secs(300);
/// Set to anything, it leaves everything of a failed test in place, to be looked at.
const KEEP: &str = "TESTKIT_KEEP";

/// The test's own database, queue, container, namespace and folder.
pub struct World {
    /// In the names of all of them.
    pub id: String,
    /// Logs and the kubeconfig.
    pub folder: TempDir,
    /// The real parts.
    pub platform: Platform,
    /// See there.
    pub database: Database,
    /// See there.
    pub broker: Broker,
    /// See there.
    pub container: Container,
    /// See there.
    pub cluster: Cluster,
}

/// Runs a test in a world of its own. When it fails, what a person would look at is printed.
///
/// # Panics
/// When the test does.
pub async fn in_a_world(test: impl AsyncFnOnce(&World)) {
    let name = test_name();
    let world = World::create(&name).await;
    let body = AssertUnwindSafe(tokio::time::timeout(LIMIT, test(&world))).catch_unwind();
    let outcome = body.await;
    let failed = !matches!(outcome, Ok(Ok(())));
    if failed {
        eprintln!("---- what {name} leaves behind ----\n{}", world.dump().await);
    }
    if failed && std::env::var_os(KEEP).is_some() {
        eprintln!(
            "{KEEP} is set: namespace e2e-{} and database {} are left in place",
            world.id,
            world.database.name()
        );
        std::mem::forget(world);
    } else {
        world.remove().await;
    }
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(_)) => panic!("the test took longer than {} s", LIMIT.as_secs()),
        Err(panic) => resume_unwind(panic),
    }
}

impl World {
    async fn create(test: &str) -> Self {
        install_crypto_provider();
        let platform = Platform::from_env();
        let id = Uuid::new_v4().simple().to_string()[..10].to_owned();
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (database, broker, container, cluster) = tokio::join!(
            Database::create(&platform),
            Broker::start(folder.path()),
            Container::create(&platform, &id),
            Cluster::create(&platform, &id, test, folder.path()),
        );
        let world = Self {
            id,
            folder,
            platform,
            database,
            broker,
            container,
            cluster,
        };
        let environment = world.exporter_environment();
        world.cluster.set_exporter_secret(environment).await;
        world
    }

    /// What the exporter needs, at the addresses by which Pods reach it.
    pub fn exporter_environment(&self) -> BTreeMap<String, String> {
        let platform = &self.platform;
        let database = |url| platform.as_pods_see(url).to_string();
        let storage = platform.storage_at(&platform.as_pods_see(&platform.blob_endpoint()));
        BTreeMap::from([
            (
                "REPORTS_DATABASE_URL".to_owned(),
                database(&self.database.exporter),
            ),
            (
                "CATALOG_DATABASE_URL".to_owned(),
                database(&self.database.exporter),
            ),
            ("AZURE_STORAGE_CONNECTION_STRING".to_owned(), storage),
            ("BLOB_CONTAINER".to_owned(), self.container.name.clone()),
        ])
    }

    /// Where the storage account listens, as `host:port`.
    pub fn blob_address(&self) -> String {
        let endpoint = self.platform.blob_endpoint();
        let host = endpoint.host_str().expect("an endpoint has a host");
        let port = endpoint.port_or_known_default().expect("http has a port");
        format!("{host}:{port}")
    }

    /// The storage account's endpoint by way of a forwarder.
    pub fn blob_endpoint_by(&self, proxy: &Proxy) -> Url {
        let mut endpoint = self.platform.blob_endpoint();
        let address = proxy.address();
        endpoint
            .set_ip_host(address.ip())
            .expect("an http URL has a host");
        endpoint
            .set_port(Some(address.port()))
            .expect("an http URL has a port");
        endpoint
    }

    /// An address of this machine that nobody listens on: below the range that Linux gives to outgoing
    /// connections, so that none of those takes it before the program does that it is for.
    pub fn free_address() -> SocketAddr {
        loop {
            let [high, low, ..] = *Uuid::new_v4().as_bytes();
            let port = 10_000 + u16::from_be_bytes([high, low]) % 10_000;
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            if TcpListener::bind(address).is_ok() {
                return address;
            }
        }
    }

    async fn dump(&self) -> String {
        let mut text = self.cluster.dump().await;
        text.push_str(&self.database.dump().await);
        text.push_str(&format!("blobs: {:?}\n", self.container.list().await));
        let files = std::fs::read_dir(self.folder.path()).expect("the test's folder can be read");
        for file in files
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|end| end == "log"))
        {
            let log = std::fs::read_to_string(file.path()).unwrap_or_else(|error| error.to_string());
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            text.push_str(&format!("{}:\n{tail}\n", file.file_name().display()));
        }
        text
    }

    async fn remove(self) {
        let Self {
            broker,
            container,
            cluster,
            ..
        } = self;
        broker.stop().await;
        tokio::join!(cluster.delete(), container.empty());
    }
}

/// As `cargo nextest` tells it, else the name of the test's thread.
fn test_name() -> String {
    std::env::var("NEXTEST_TEST_NAME")
        .ok()
        .or_else(|| std::thread::current().name().map(str::to_owned))
        .unwrap_or_else(|| "a test".to_owned())
}

/// The tests share a process, and the first of them installs the provider.
fn install_crypto_provider() {
    static INSTALL: std::sync::Once = std::sync::Once::new();
    INSTALL.call_once(|| {
        runtime::install_crypto_provider().expect("nothing has installed a TLS provider before the tests");
    });
}
