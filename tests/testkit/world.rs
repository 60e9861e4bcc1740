//! Everything that one test needs, made before it and removed after it, whatever happens in between.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
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
use crate::release::Part;
use crate::tokens;

/// How long a test may take. Its own waits are shorter; this is for what they have not thought of.
const LIMIT: Duration = Duration::from_secs(300);
/// Set to anything, it leaves everything of a failed test in place, to be looked at.
const KEEP: &str = "TESTKIT_KEEP";

/// The test's own database, queue, container, namespace and folder.
pub struct World {
    /// In the names of all of them.
    pub id: String,
    /// The broker's messages.
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
            Broker::start(&platform, folder.path()),
            Container::create(&platform, &id),
            Cluster::create(&platform, &id, test),
        );
        Self {
            id,
            folder,
            platform,
            database,
            broker,
            container,
            cluster,
        }
    }

    /// What a program's Secret holds, at the addresses by which Pods reach this machine.
    pub fn environment(&self, part: Part) -> BTreeMap<String, String> {
        let platform = &self.platform;
        let reports = platform.as_pods_see(&self.database.url(part)).to_string();
        let storage = || {
            let endpoint = platform.as_pods_see(&platform.blob_endpoint());
            let storage = platform.storage_at(&endpoint);
            ("AZURE_STORAGE_CONNECTION_STRING", storage)
        };
        let mut values = vec![("REPORTS_DATABASE_URL", reports.clone())];
        match part {
            Part::Migrations => {}
            Part::Api => values.extend([storage(), ("JWT_KEY", tokens::KEY.to_owned())]),
            Part::Operator => {
                let queue = self.broker.connection_string();
                values.extend([storage(), ("SERVICEBUS_CONNECTION_STRING", queue)]);
            }
            Part::Exporter => {
                // One database holds both, and one login reads them.
                values.extend([storage(), ("CATALOG_DATABASE_URL", reports)]);
            }
        }
        values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// A forwarder, which Pods reach, to the host and port of an address.
    pub async fn forwarder_to(&self, target: &Url) -> Proxy {
        let host = target.host_str().expect("an address has a host");
        let port = target.port_or_known_default().expect("an address has a port");
        Proxy::start(&self.platform.pods_host, &format!("{host}:{port}")).await
    }

    /// The storage account's connection string by way of a forwarder.
    pub fn storage_by(&self, proxy: &Proxy) -> String {
        self.platform
            .storage_at(&proxy.instead_of(&self.platform.blob_endpoint()))
    }

    /// An address of this machine that nobody listens on: below the range that Linux gives to outgoing
    /// connections, so that none of those takes it before the program does that it is for.
    pub fn free_address(host: &str) -> SocketAddr {
        let host: IpAddr = host.parse().expect("PODS_HOST is an address");
        loop {
            let [high, low, ..] = *Uuid::new_v4().as_bytes();
            let port = 10_000 + u16::from_be_bytes([high, low]) % 10_000;
            let address = SocketAddr::from((host, port));
            if TcpListener::bind(address).is_ok() {
                return address;
            }
        }
    }

    async fn dump(&self) -> String {
        let mut text = self.cluster.dump().await;
        text.push_str(&self.database.dump().await);
        text.push_str(&format!("blobs: {:?}\n", self.container.list().await));
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
