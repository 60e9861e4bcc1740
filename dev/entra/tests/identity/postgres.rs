//! PostgreSQL by tokens: the role's password is the current token, and old ones are refused.

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use entra::{Fault, Front, Issued, Speaks};
use identity::{Identity, POSTGRES_SCOPE};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool};
use store::Notification;
use store::catalogue::Snapshot;
use store::pool::Login;
use store::testing::TestDatabase;
use uuid::Uuid;

use crate::support::{World, a_world_of, client, until};

/// The newest token of each identity.
type Newest = Arc<Mutex<HashMap<Uuid, SecretString>>>;

/// A database behind TLS, whose logins have tokens for passwords.
struct Azure {
    database: TestDatabase,
    world: World,
    front: Front,
    newest: Newest,
}

const API: usize = 1;
const EXPORTER: usize = 2;
const OWNER: usize = 3;

impl Azure {
    async fn start(lifetime: Duration) -> Self {
        let database = store::testing::catalogue_database().await;
        let users: HashMap<Uuid, String> = [
            (client(API), user(&database.api_url)),
            (client(EXPORTER), user(&database.exporter_url)),
            (client(OWNER), user(&database.owner_url)),
        ]
        .into();
        let newest = Newest::default();
        let (admin, known) = (database.admin_pool.clone(), Arc::clone(&newest));
        let world = a_world_of(3, lifetime, move |issued: Issued| {
            let (admin, known) = (admin.clone(), Arc::clone(&known));
            let statement = format!(
                "ALTER ROLE \"{}\" PASSWORD '{}'",
                users[&issued.client_id],
                issued.token.expose_secret()
            );
            Box::pin(async move {
                if issued.scope == POSTGRES_SCOPE {
                    admin.execute(AssertSqlSafe(statement)).await?;
                    known.lock().unwrap().insert(issued.client_id, issued.token);
                }
                Ok(())
            })
        })
        .await;
        let server = options(&database.admin_url);
        let target = format!("{}:{}", server.get_host(), server.get_port());
        let front = Front::start(&world.tls, Speaks::Postgres, "127.0.0.1", target)
            .await
            .unwrap();
        Self {
            database,
            world,
            front,
            newest,
        }
    }

    /// Without a password, and TLS down to the name.
    fn url(&self, of: &SecretString) -> SecretString {
        let options = options(of);
        format!(
            "postgres://{}@{}/{}?sslrootcert={}",
            options.get_username(),
            self.front.address(),
            options.get_database().unwrap(),
            self.world.tls.certificate().display()
        )
        .into()
    }

    fn login(&self, number: usize) -> (Identity, Login) {
        let identity = Identity::new(&self.world.settings(client(number))).unwrap();
        let login = Some(identity.passwords(POSTGRES_SCOPE)).into();
        (identity, login)
    }

    async fn api_pool(&self, max: u32) -> (Identity, PgPool) {
        let (identity, login) = self.login(API);
        login.ready().await;
        let pool = store::pool::connect(&self.url(&self.database.api_url), &login, max, "test").unwrap();
        (identity, pool)
    }

    fn rotations(&self, number: usize) -> usize {
        self.world.entra.issued(client(number), POSTGRES_SCOPE)
    }

    fn newest(&self, number: usize) -> SecretString {
        self.newest.lock().unwrap()[&client(number)].clone()
    }

    /// One connection by a token of the test's choice.
    async fn connect_by(&self, token: &SecretString) -> Result<PgConnection, sqlx::Error> {
        options(&self.url(&self.database.api_url))
            .password(token.expose_secret())
            .connect()
            .await
    }
}

fn options(url: &SecretString) -> PgConnectOptions {
    PgConnectOptions::from_str(url.expose_secret()).unwrap()
}

fn user(url: &SecretString) -> String {
    options(url).get_username().to_owned()
}

async fn backend(connection: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(connection)
        .await
        .unwrap()
}

/// A new connection, whatever is idle in the pool. Between the change of the password and its arrival here
/// there is a moment in which PostgreSQL refuses; the product counts that as an outage and tries again.
async fn a_new_connection(pool: &PgPool) -> PgConnection {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    loop {
        match pool.connect_options().connect().await {
            Ok(connection) => return connection,
            Err(error) if store::pool::is_unavailable(&error) && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("no new connection: {error}"),
        }
    }
}

#[tokio::test]
async fn over_rotations_open_connections_stay_and_new_ones_come() {
    let azure = Azure::start(Duration::from_secs(2)).await;
    let (_identity, pool) = azure.api_pool(4).await;
    let mut held = pool.acquire().await.unwrap();
    let first = backend(&mut held).await;

    for rotation in 1..=3 {
        let old = azure.newest(API);
        let before = azure.rotations(API);
        until("the next token", async || azure.rotations(API) > before).await;

        assert_eq!(backend(&mut held).await, first, "rotation {rotation}");
        let mut new = a_new_connection(&pool).await;
        assert_ne!(backend(&mut new).await, first);
        new.close().await.unwrap();
        let refused = azure.connect_by(&old).await.unwrap_err();
        let code = refused
            .as_database_error()
            .and_then(|error| error.code())
            .unwrap()
            .into_owned();
        assert_eq!(code, "28P01", "the old token is no password any more: {refused}");
    }
    drop(held);
    pool.close().await;
}

#[tokio::test]
async fn a_listener_a_snapshot_and_the_migrations_log_in_by_tokens() {
    let azure = Azure::start(Duration::from_secs(2)).await;
    let (_api, pool) = azure.api_pool(3).await;
    let mut notifications = store::reports::listen(&pool).await.unwrap();
    let (_exporter, login) = azure.login(EXPORTER);
    login.ready().await;
    let catalogue =
        store::catalogue::connect(&azure.url(&azure.database.exporter_url), &login, "test").unwrap();
    let snapshot = Snapshot::open(&catalogue).await.unwrap();

    let (api, exporter) = (azure.rotations(API), azure.rotations(EXPORTER));
    until("both have other tokens", async || {
        azure.rotations(API) > api + 1 && azure.rotations(EXPORTER) > exporter + 1
    })
    .await;

    // the snapshot has lasted
    snapshot.data_as_of();
    drop(snapshot);
    // so has the listener; its connection is broken now, and it comes back by the newest token
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    azure.database.admin_pool.execute(kill).await.unwrap();
    until("the listener is back", async || {
        matches!(notifications.recv().await, Ok(Notification::Missed))
    })
    .await;

    let (_owner, login) = azure.login(OWNER);
    login.ready().await;
    let owner = store::pool::connect(&azure.url(&azure.database.owner_url), &login, 1, "migrate").unwrap();
    store::migrations::run(&owner).await.unwrap();
}

#[tokio::test]
async fn before_the_first_token_the_database_counts_as_away() {
    let azure = Azure::start(Duration::from_secs(60)).await;
    azure.world.entra.set_fault(Some(Fault::Refuse));
    let (identity, login) = azure.login(API);
    let pool = store::pool::connect(&azure.url(&azure.database.api_url), &login, 1, "test").unwrap();

    let error = store::pool::ping(&pool).await.unwrap_err();
    assert!(store::pool::is_unavailable(&error), "{error}");
    until("the refusal is told", async || identity.health().is_err()).await;

    azure.world.entra.set_fault(None);
    login.ready().await;
    until("the pool connects", async || {
        store::pool::ping(&pool).await.is_ok()
    })
    .await;
    assert!(identity.health().is_ok());
}

#[tokio::test]
async fn with_the_token_endpoint_away_open_connections_serve_beyond_the_tokens_end() {
    let azure = Azure::start(Duration::from_secs(1)).await;
    let (identity, pool) = azure.api_pool(1).await;
    store::pool::ping(&pool).await.unwrap();

    azure.world.entra.set_fault(Some(Fault::Away));
    until("the token has ended", async || identity.health().is_err()).await;
    store::pool::ping(&pool).await.unwrap();

    azure.world.entra.set_fault(None);
    until("there are tokens again", async || identity.health().is_ok()).await;
    a_new_connection(&pool).await.close().await.unwrap();
}
