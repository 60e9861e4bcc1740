//! `operator doctor`: one line for each thing that a program needs.

use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;
use blob::BlobStore;
use checks::Check;
use futures::stream::{FuturesOrdered, StreamExt};
use identity::{Identity, POSTGRES_SCOPE};
use jiff::Timestamp;
use kubernetes::rights;
use serde_json::json;
use sqlx::PgPool;
use store::pool::Login;
use tokio::time::timeout;
use uuid::Uuid;

use crate::clients;
use crate::config::{DoctorArgs, Program};
use crate::error_chain::error_chain;

/// The longest that the checks of one dependency may take together.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// The name under which PostgreSQL shows the connections.
const APPLICATION: &str = "popularity-reports-doctor";

type Checks = Pin<Box<dyn Future<Output = Vec<Check>> + Send>>;

impl Program {
    /// As the store has it.
    pub const fn in_store(self) -> store::checks::Program {
        match self {
            Self::Api => store::checks::Program::Api,
            Self::Operator => store::checks::Program::Operator,
            Self::Exporter => store::checks::Program::Exporter,
        }
    }
}

/// Looks at everything at once, prints in a fixed order, and says whether all is well.
///
/// # Errors
/// An option cannot be used.
pub async fn run(args: DoctorArgs) -> Result<bool> {
    let mut found = Vec::new();
    let mut checks = gather(&args).await?;
    while let Some(group) = checks.next().await {
        if !args.json {
            for check in &group {
                println!("{check}");
            }
        }
        found.extend(group);
    }
    let ok = !found.iter().any(Check::failed);
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({ "ok": ok, "checks": found }))?
        );
    }
    Ok(ok)
}

/// The checks of each dependency, in the order in which they are told.
async fn gather(args: &DoctorArgs) -> Result<FuturesOrdered<Checks>> {
    let program = args.program;
    let servicebus = (program == Program::Operator).then_some(&args.servicebus);
    let identity = clients::identity(&args.identity, Some(&args.database), servicebus, Some(&args.blob))?;
    let login: Login = args.database.passwords(identity.as_ref()).into();
    let pool = store::pool::connect(&args.database.reports_database_url, &login, 2, APPLICATION)?;
    let blobs = clients::blob_store(&args.blob, identity.as_ref())?;
    let catalogue = match &args.catalogue {
        Some(catalogue) => Some(store::pool::connect(
            &catalogue.catalog_database_url,
            &login,
            1,
            APPLICATION,
        )?),
        None => None,
    };
    // a token first: without one every login below would be refused, for a reason that is not its own
    let token = token(identity.as_ref()).await;
    let no_token = token.iter().any(Check::failed);

    let mut checks = FuturesOrdered::new();
    let mut add = |names: &'static [&'static str], work: Checks| {
        let limited: Checks = Box::pin(async move {
            match timeout(TIME_LIMIT, work).await {
                Ok(checks) => checks,
                Err(_) => names.iter().map(|name| took_too_long(name)).collect(),
            }
        });
        checks.push_back(limited);
    };
    add(&[], Box::pin(std::future::ready(token.into_iter().collect())));
    if no_token {
        return Ok(checks);
    }
    {
        let pool = pool.clone();
        add(
            &[store::checks::names::DATABASE],
            Box::pin(async move { store::checks::reports(&pool, program.in_store()).await }),
        );
    }
    if program != Program::Api {
        add(
            &[store::checks::names::CATALOGUE],
            Box::pin(read_catalogue(catalogue, program)),
        );
    }
    if program == Program::Operator {
        let queue = args.servicebus.servicebus_queue.clone();
        let client = clients::servicebus(&args.servicebus, identity.as_ref());
        add(
            &[servicebus::checks::names::SEND],
            Box::pin(use_queue(client, queue)),
        );
    }
    add(
        &[blob::checks::names::READ],
        Box::pin(use_container(blobs.clone(), program)),
    );
    if program != Program::Exporter {
        let namespace = args.kubernetes.reports_namespace.clone();
        let lease = args.kubernetes.lease_name.clone();
        add(
            &[kubernetes::checks::names::RIGHTS],
            Box::pin(use_kubernetes(namespace, lease, program)),
        );
    }
    add(&[store::checks::names::CLOCK], Box::pin(clocks(pool, blobs)));
    Ok(checks)
}

/// Whether the Pod's identity gets tokens; nothing when no login is by it.
async fn token(identity: Option<&Identity>) -> Option<Check> {
    const NAME: &str = "workload identity";
    let identity = identity?;
    let asked = timeout(TIME_LIMIT, identity.token(POSTGRES_SCOPE)).await;
    Some(match asked {
        Ok(Ok(_)) => Check::ok(NAME, "the token service gives tokens"),
        Ok(Err(error)) => Check::missing(
            NAME,
            error_chain(&error),
            "az identity federated-credential create --identity-name <identity> --resource-group <resource-group> \
             --name <name> --issuer <the cluster's OIDC issuer> --subject system:serviceaccount:<namespace>:<service-account>",
        ),
        Err(_) => took_too_long(NAME),
    })
}

async fn read_catalogue(pool: Option<PgPool>, program: Program) -> Vec<Check> {
    const NAME: &str = store::checks::names::CATALOGUE;
    let check = match (pool, program) {
        (Some(pool), _) => store::checks::catalogue(&pool).await,
        (None, Program::Exporter) => Check::missing(
            NAME,
            "CATALOG_DATABASE_URL is not given",
            "put it into the exporter's Secret",
        ),
        (None, _) => Check::not_checked(NAME, "CATALOG_DATABASE_URL is not given here; see --as exporter"),
    };
    vec![check]
}

async fn use_queue(client: Result<servicebus::Client, clients::Error>, queue: String) -> Vec<Check> {
    match client {
        Ok(client) => {
            let checks = servicebus::checks::queue(&client, &queue).await;
            client.close().await;
            checks
        }
        Err(error) => vec![Check::missing(
            servicebus::checks::names::SEND,
            error_chain(&error),
            "put SERVICEBUS_CONNECTION_STRING into the operator's Secret, or set serviceBus.namespace",
        )],
    }
}

/// The operator deletes, the exporter writes and deletes, the API reads and signs.
async fn use_container(blobs: BlobStore, program: Program) -> Vec<Check> {
    let probe = format!("doctor-{}", Uuid::new_v4());
    match program {
        Program::Api => {
            let (read, link) = tokio::join!(
                blob::checks::read(&blobs, &probe),
                blob::checks::link(&blobs, Timestamp::now())
            );
            vec![read, link]
        }
        Program::Operator | Program::Exporter => blob::checks::write_and_delete(&blobs, &probe).await,
    }
}

async fn use_kubernetes(namespace: String, lease: String, program: Program) -> Vec<Check> {
    let client = match clients::cluster().await {
        Ok(client) => client,
        Err(error) => {
            return vec![Check::missing(
                kubernetes::checks::names::RIGHTS,
                error_chain(&error),
                "run this in the Pod, or set KUBECONFIG",
            )];
        }
    };
    let rules = match program {
        Program::Api => rights::API,
        Program::Operator | Program::Exporter => rights::OPERATOR,
    };
    let (definition, rights, clock) = tokio::join!(
        kubernetes::checks::definition_of_this_version(&client),
        kubernetes::checks::rights(&client, &namespace, &lease, rules),
        kubernetes::checks::clock(&client),
    );
    vec![definition, rights, clock]
}

async fn clocks(pool: PgPool, blobs: BlobStore) -> Vec<Check> {
    let (database, storage) = tokio::join!(store::checks::clock(&pool), blob::checks::clock(&blobs));
    vec![database, storage]
}

fn took_too_long(name: &'static str) -> Check {
    Check::unavailable(
        name,
        format!("no answer within {} s", TIME_LIMIT.as_secs()),
        "see that no firewall or NetworkPolicy swallows the connection, and run it again",
    )
}
