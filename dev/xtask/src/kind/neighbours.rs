//! What the product needs, inside the kind cluster: the values of the chart `dev/kind/neighbours/chart`, and the Secrets by
//! which the product's programs reach it.

use serde_json::{Value, json};

use super::images::Images;
use crate::platform::{Sample, servicebus::QUEUE, settings::Settings};

/// The release of what the product needs, and its namespace.
pub const NAMESPACE: &str = "neighbours";

pub const CHART: &str = "dev/kind/neighbours/chart";

/// The account's name is part of its public address, which is in `values-kind.yaml`.
const ACCOUNT: &str = "devstoreaccount1";

const DATABASE: &str = "music_albums";

/// The key of Microsoft's emulator, which is the same everywhere.
/// <https://learn.microsoft.com/azure/service-bus-messaging/test-locally-with-service-bus-emulator>
const MICROSOFT_KEY: &str = "SAS_KEY_VALUE";

/// A login, and the group whose rights it has (`migrations/README.md`).
struct Login<'a> {
    name: &'static str,
    password: &'a str,
    group: &'static str,
}

fn logins(settings: &Settings) -> [Login<'_>; 4] {
    let secrets = &settings.secrets;
    let login = |name, password, group| Login {
        name,
        password,
        group,
    };
    [
        login("music_albums_owner", &secrets.owner, "popularity_reports_owner"),
        login("reports_api", &secrets.api, "popularity_reports_api"),
        login(
            "reports_operator",
            &secrets.operator,
            "popularity_reports_operator",
        ),
        login(
            "reports_exporter",
            &secrets.exporter,
            "popularity_reports_exporter",
        ),
    ]
}

fn url(login: &Login) -> String {
    let Login { name, password, .. } = login;
    format!("postgres://{name}:{password}@postgres.{NAMESPACE}:5432/{DATABASE}")
}

/// The values for the neighbours' chart.
pub fn values(settings: &Settings, images: &Images, sample: Sample) -> Value {
    let secrets = &settings.secrets;
    let logins = logins(settings);
    let owner = &logins[0];
    let mut sql = String::new();
    for Login {
        name,
        password,
        group,
    } in &logins
    {
        sql.push_str(&format!(
            "CREATE ROLE {group} NOLOGIN;\nCREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE {group};\n"
        ));
    }
    // the migrations' older group roles are made by the migrations
    sql.push_str(&format!(
        "ALTER ROLE {0} CREATEROLE;\nCREATE DATABASE {DATABASE} OWNER {0};\n",
        owner.name
    ));
    json!({
        "images": images.names(),
        "servicebus": {
            "microsoft": images.microsoft,
            "queue": QUEUE,
            "key": secrets.servicebus_key,
            // SQL Server wants characters of three kinds
            "sqlPassword": format!("Sql-{}", secrets.postgres),
        },
        "azurite": {"account": format!("{ACCOUNT}:{}", secrets.blob_key)},
        "postgres": {"password": secrets.postgres, "sql": sql, "ownerUrl": url(owner)},
        "sample": {"albums": sample.albums, "ratings": sample.ratings, "seed": sample.seed},
    })
}

/// The Secrets that `values-kind.yaml` names, in the product's namespace.
pub fn secrets(settings: &Settings, images: &Images, namespace: &str) -> Value {
    let [owner, api, operator, exporter] = logins(settings);
    let blob = format!(
        "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={};\
         BlobEndpoint=http://azurite.{NAMESPACE}:10000/{ACCOUNT};",
        settings.secrets.blob_key
    );
    let key = if images.microsoft {
        MICROSOFT_KEY
    } else {
        &settings.secrets.servicebus_key
    };
    let servicebus = format!(
        "Endpoint=sb://servicebus.{NAMESPACE}:5672;SharedAccessKeyName=RootManageSharedAccessKey;\
         SharedAccessKey={key};UseDevelopmentEmulator=true;"
    );
    let secret = |program: &str, data: Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": format!("popularity-reports-{program}"), "namespace": namespace},
            "stringData": data,
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items": [
        secret("api", json!({
            "REPORTS_DATABASE_URL": url(&api),
            "AZURE_STORAGE_CONNECTION_STRING": blob,
            "JWT_KEY": settings.secrets.jwt_key,
        })),
        secret("operator", json!({
            "REPORTS_DATABASE_URL": url(&operator),
            "SERVICEBUS_CONNECTION_STRING": servicebus,
            "AZURE_STORAGE_CONNECTION_STRING": blob,
        })),
        secret("exporter", json!({
            "REPORTS_DATABASE_URL": url(&exporter),
            "CATALOG_DATABASE_URL": url(&exporter),
            "AZURE_STORAGE_CONNECTION_STRING": blob,
        })),
        secret("migrations", json!({"REPORTS_DATABASE_URL": url(&owner)})),
    ]})
}
