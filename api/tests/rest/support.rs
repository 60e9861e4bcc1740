//! One service on one database, for one test.

mod answer;
mod reports;
mod tokens;

use std::net::SocketAddr;

use api::{Config, Server, ServerError};
use clap::Parser;
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use store::testing::TestDatabase;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use answer::Answer;
pub(crate) use answer::assert_answer;
pub use reports::an_artifact;
pub use tokens::{JWT_KEY, OTHER_USER, Token, USER, seconds_from_now};

/// An account of Azurite's form at a port where nothing listens: links are signed without asking it.
const STORAGE: &str = "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;\
    AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;\
    BlobEndpoint=http://127.0.0.1:1/devstoreaccount1;";

/// Nothing listens there.
pub const NO_DATABASE: &str = "postgres://nobody:database-secret@127.0.0.1:1/nothing";

/// A running service.
pub struct Api {
    pub address: SocketAddr,
    database: Option<TestDatabase>,
    pub shutdown: CancellationToken,
    pub running: JoinHandle<Result<(), ServerError>>,
    http: reqwest::Client,
}

impl Api {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With options beside, or in place of, the usual ones.
    pub async fn start_with(options: &[&str]) -> Self {
        let database = store::testing::database().await;
        let url = database.api_url.clone();
        Self::start_at(&url, Some(database), options).await
    }

    /// With a database that is away: also for tests of what is refused before it would be asked.
    pub async fn start_without_database(options: &[&str]) -> Self {
        Self::start_at(&NO_DATABASE.into(), None, options).await
    }

    async fn start_at(url: &SecretString, database: Option<TestDatabase>, options: &[&str]) -> Self {
        let server = Server::bind(config(url, options)).await.unwrap();
        let address = server.local_addr();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.serve(shutdown.clone()));
        Self {
            address,
            database,
            shutdown,
            running,
            http: reqwest::Client::new(),
        }
    }

    /// The service's database.
    pub fn database(&self) -> &TestDatabase {
        self.database
            .as_ref()
            .expect("a service that was started with a database")
    }

    /// A request without a token.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.address))
    }

    /// A request by a user.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(Token::of(USER).signed())
    }

    /// `POST /reports/popularity` by a user.
    pub fn post(&self) -> RequestBuilder {
        self.request(Method::POST, "/reports/popularity")
    }

    /// `GET` by a user.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }
}

/// The usual options, and then `options`, of which the last of a kind holds.
pub fn config(database_url: &SecretString, options: &[&str]) -> Config {
    let usual = [
        "api",
        "--api-listen=127.0.0.1:0",
        "--kubernetes=false",
        "--reports-namespace=reports-test",
        "--blob-public-endpoint=https://files.example/devstoreaccount1",
        "--reports-database-url",
        database_url.expose_secret(),
        "--azure-storage-connection-string",
        STORAGE,
        "--jwt-key",
        JWT_KEY,
    ];
    let given = |option: &str| {
        let name = option.split('=').next().unwrap_or(option);
        options.iter().any(|other| other.split('=').next() == Some(name))
    };
    // an option that the test gives replaces the usual one, together with its value
    let mut arguments = Vec::new();
    let mut usual = usual.into_iter().peekable();
    while let Some(option) = usual.next() {
        let value = usual.next_if(|next| !next.starts_with("--"));
        if option == "api" || !given(option) {
            arguments.push(option);
            arguments.extend(value);
        }
    }
    Config::try_parse_from(arguments.iter().chain(options)).unwrap()
}
