//! Where the programs run: a database, a broker and a storage account that take tokens alone, and a namespace
//! with a service account for each.

use std::collections::HashMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr as _;
use std::time::Duration;

use azurite::Azurite;
use entra::{AUDIENCE, Entra, Federation, Front, Issued, Setup, Speaks, Tls};
use identity::POSTGRES_SCOPE;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{EncodingKey, Header};
use reqwest::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use servicebus_emulator::{Config, Emulator, JwtIssuer, QueueSettings, Running};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor as _};
use store::testing::TestDatabase;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use uuid::Uuid;

const JWT_KEY: &str = "a key for tests of at least thirty-two bytes";
const PARTS: [Part; 4] = [Part::Migrations, Part::Api, Part::Operator, Part::Exporter];

/// Whose identity it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Migrations,
    Api,
    Operator,
    Exporter,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Migrations => "migrations",
            Self::Api => "api",
            Self::Operator => "operator",
            Self::Exporter => "exporter",
        }
    }
}

pub struct Place {
    tls: Tls,
    entra: Entra,
    database: TestDatabase,
    postgres: Front,
    servicebus: Front,
    azurite: Azurite,
    namespace: String,
    folder: TempDir,
    _emulator: Running,
}

impl Place {
    pub async fn start(lifetime: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let namespace = format!("identity-{}", &Uuid::new_v4().simple().to_string()[..8]);
        kubectl(&["create", "namespace", &namespace]).await;
        for part in PARTS {
            let name = part.name();
            kubectl(&["-n", &namespace, "create", "serviceaccount", name]).await;
            let token = ["-n", &namespace, "create", "token", name, "--audience", AUDIENCE];
            std::fs::write(folder.path().join(name), kubectl(&token).await).unwrap();
        }

        let tls = Tls::new(&["127.0.0.1", "localhost"]).unwrap();
        let database = store::testing::catalogue_database().await;
        database
            .admin_pool
            .execute(include_str!("../../../../exporter/tests/export/catalogue.sql"))
            .await
            .unwrap();
        let entra = token_endpoint(&namespace, &tls, &database, lifetime).await;

        let mut config =
            Config::in_memory().with_queue("report-requests".parse().unwrap(), QueueSettings::default());
        config.jwt_issuer = Some(JwtIssuer {
            issuer: entra.issuer(),
            keys: entra.keys().clone(),
        });
        let emulator = Emulator::start(config).await.unwrap();
        let server = options(&database.admin_url);
        let front = async |speaks, target| Front::start(&tls, speaks, "127.0.0.1", target).await.unwrap();
        let azurite = Azurite::start_with_tokens(&azurite::Tls {
            certificate: tls.certificate().to_owned(),
            key: tls.key().to_owned(),
        })
        .unwrap();
        a_container(&azurite, &tls).await;
        Self {
            postgres: front(
                Speaks::Postgres,
                format!("{}:{}", server.get_host(), server.get_port()),
            )
            .await,
            servicebus: front(Speaks::Tls, emulator.amqp_addr().to_string()).await,
            azurite,
            tls,
            entra,
            database,
            namespace,
            folder,
            _emulator: emulator,
        }
    }

    /// With the operator still there, which lets the reports go.
    pub async fn remove(self) {
        self.kubectl(&["delete", "popularityreports", "--all", "--timeout=60s"])
            .await;
        kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]).await;
    }

    pub fn client(&self, part: Part) -> Uuid {
        client(part)
    }

    pub fn token_file(&self, part: Part) -> String {
        self.folder.path().join(part.name()).display().to_string()
    }

    pub fn issued(&self, part: Part) -> usize {
        self.entra.issued(client(part), POSTGRES_SCOPE)
    }

    /// How often somebody else's service account was refused.
    pub fn refused(&self) -> u64 {
        self.entra.refused(700_213)
    }

    pub fn http(&self) -> reqwest::Client {
        let certificate = std::fs::read(self.tls.certificate()).unwrap();
        reqwest::Client::builder()
            .tls_certs_only(reqwest::tls::Certificate::from_pem_bundle(&certificate).unwrap())
            .build()
            .unwrap()
    }

    pub async fn kubectl(&self, words: &[&str]) -> String {
        kubectl(&[&["-n", &self.namespace], words].concat()).await
    }

    fn url(&self, of: &SecretString) -> String {
        let options = options(of);
        format!(
            "postgres://{}@{}/{}?sslrootcert={}",
            options.get_username(),
            self.postgres.address(),
            options.get_database().unwrap(),
            self.tls.certificate().display()
        )
    }

    /// What AKS's webhook and the chart would set; no secret but the key of the users' tokens.
    fn environment(&self, part: Part) -> HashMap<String, String> {
        let own = match part {
            Part::Migrations => &self.database.owner_url,
            Part::Api => &self.database.api_url,
            Part::Operator => &self.database.operator_url,
            Part::Exporter => &self.database.exporter_url,
        };
        let mut values = vec![
            ("AZURE_CLIENT_ID", client(part).to_string()),
            ("AZURE_TENANT_ID", self.entra.tenant().to_string()),
            ("AZURE_FEDERATED_TOKEN_FILE", self.token_file(part)),
            (
                "AZURE_AUTHORITY_HOST",
                self.entra.authority_host().unwrap().to_string(),
            ),
            ("SSL_CERT_FILE", self.tls.certificate().display().to_string()),
            ("DATABASE_LOGIN", "workload-identity".to_owned()),
            ("REPORTS_DATABASE_URL", self.url(own)),
            ("LOG_FORMAT", "text".to_owned()),
        ];
        if part != Part::Migrations {
            values.push(("BLOB_ENDPOINT", self.azurite.endpoint().to_owned()));
        }
        match part {
            Part::Migrations => {}
            Part::Exporter => values.push(("CATALOG_DATABASE_URL", self.url(own))),
            Part::Api => values.push(("JWT_KEY", JWT_KEY.to_owned())),
            Part::Operator => values.extend([
                ("SERVICEBUS_NAMESPACE", self.servicebus.address().to_string()),
                ("EXPORTER_IMAGE", "nowhere.invalid/exporter:none".to_owned()),
                ("EXPORTER_IMAGE_PULL_POLICY", "never".to_owned()),
            ]),
        }
        if matches!(part, Part::Api | Part::Operator) {
            values.push(("REPORTS_NAMESPACE", self.namespace.clone()));
            values.push(("KUBECONFIG", std::env::var("KUBECONFIG").unwrap()));
        }
        let values: HashMap<_, _> = values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        for secret in ["AccountKey", "SharedAccessKey", "test-only"] {
            assert!(values.values().all(|value| !value.contains(secret)));
        }
        values
    }

    fn command(&self, part: Part, program: &str, words: &[&str], more: &[(&str, &str)]) -> Command {
        let mut command = Command::new(beside_this_test().join(program));
        command
            .args(words)
            .env_clear()
            .envs(self.environment(part))
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its good end.
    pub async fn run(&self, part: Part, program: &str, words: &[&str], more: &[(&str, &str)]) {
        let message = self.folder.path().join("message").display().to_string();
        let output = self
            .command(part, program, words, more)
            .env("TERMINATION_MESSAGE_PATH", message)
            .output()
            .await
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {}\n{text}", output.status);
    }

    pub fn spawn(&self, part: Part, program: &str, words: &[&str], more: &[(&str, &str)]) -> Program {
        let address = free_address();
        let log = self.folder.path().join(format!("{program}.log"));
        let output = File::create(&log).unwrap();
        let errors = output.try_clone().unwrap();
        let child = self
            .command(part, program, words, more)
            .env("API_LISTEN", address.to_string())
            .env("HEALTH_LISTEN", address.to_string())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap();
        Program {
            address,
            log,
            _child: child,
        }
    }
}

/// A program that runs; killed when dropped.
pub struct Program {
    address: SocketAddr,
    log: PathBuf,
    _child: Child,
}

impl Program {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub async fn becomes_ready(&self, limit: Duration) {
        let ready = async {
            while self.ready().await.0 != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(limit, ready).await.is_err() {
            panic!("not ready: {}\n{}", self.ready().await.1, self.log());
        }
    }

    /// What it says of its readiness; nothing while it starts.
    pub async fn ready(&self) -> (StatusCode, String) {
        match reqwest::get(format!("http://{}/_health/ready", self.address)).await {
            Ok(answer) => (answer.status(), answer.text().await.unwrap_or_default()),
            Err(_) => (StatusCode::NOT_FOUND, String::new()),
        }
    }

    pub async fn rest(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let url = format!("http://{}{path}", self.address);
        let method = reqwest::Method::from_str(method).unwrap();
        let mut request = reqwest::Client::new().request(method, url).bearer_auth(a_user());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}

async fn token_endpoint(namespace: &str, tls: &Tls, database: &TestDatabase, lifetime: Duration) -> Entra {
    let configuration: Value =
        serde_json::from_str(&kubectl(&["get", "--raw", "/.well-known/openid-configuration"]).await).unwrap();
    let federations = PARTS.map(|part| Federation {
        client_id: client(part),
        issuer: configuration["issuer"].as_str().unwrap().to_owned(),
        subject: format!("system:serviceaccount:{namespace}:{}", part.name()),
    });
    let setup = Setup {
        host: "127.0.0.1".to_owned(),
        federations: federations.to_vec(),
        cluster_keys: serde_json::from_str(&kubectl(&["get", "--raw", "/openid/v1/jwks"]).await).unwrap(),
        lifetime,
    };
    let urls = [
        &database.owner_url,
        &database.api_url,
        &database.operator_url,
        &database.exporter_url,
    ];
    let users: HashMap<Uuid, String> = PARTS
        .into_iter()
        .zip(urls)
        .map(|(part, url)| (client(part), options(url).get_username().to_owned()))
        .collect();
    let admin = database.admin_pool.clone();
    Entra::start(setup, tls, move |issued: Issued| {
        let (admin, user) = (admin.clone(), users[&issued.client_id].clone());
        Box::pin(async move {
            if issued.scope == POSTGRES_SCOPE {
                let token = issued.token.expose_secret();
                let statement = format!("ALTER ROLE \"{user}\" PASSWORD '{token}'");
                admin.execute(AssertSqlSafe(statement)).await?;
            }
            Ok(())
        })
    })
    .await
    .unwrap()
}

/// As an administrator makes it: the programs' identities need not be allowed to.
async fn a_container(azurite: &Azurite, tls: &Tls) {
    let key = blob::Credential::ConnectionString(azurite.connection_string().into());
    let store = blob::BlobStore::new(blob::BlobConfig {
        extra_authorities: Some(std::fs::read(tls.certificate()).unwrap()),
        ..blob::BlobConfig::new(key, "reports")
    });
    store.unwrap().ensure_container().await.unwrap();
}

fn client(part: Part) -> Uuid {
    Uuid::from_u128(part as u128 + 1)
}

fn options(url: &SecretString) -> PgConnectOptions {
    PgConnectOptions::from_str(url.expose_secret()).unwrap()
}

async fn kubectl(words: &[&str]) -> String {
    let program = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
    let output = Command::new(program)
        .args(words)
        .output()
        .await
        .expect("kubectl runs");
    assert!(
        output.status.success(),
        "kubectl {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// `target/debug` when this test is `target/debug/deps/programs-…`.
fn beside_this_test() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn a_user() -> String {
    let now = Timestamp::now();
    let claims = json!({
        "jti": Uuid::new_v4(),
        "sub": "someone@example.invalid",
        "email": "someone@example.invalid",
        "userid": Uuid::from_u128(7),
        "admin": false,
        "trusted_member": true,
        "iss": "MusicAlbumsIdentity",
        "aud": "MusicAlbumsApi",
        "nbf": now.as_second() - 60,
        "iat": now.as_second(),
        "exp": (now + SignedDuration::from_hours(1)).as_second(),
    });
    let key = EncodingKey::from_secret(JWT_KEY.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

/// Waits until it holds.
pub async fn until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(limit, wait)
        .await
        .unwrap_or_else(|_| panic!("not within {} s: {what}", limit.as_secs()));
}
