//! A database of the test's own, with the music-albums service's tables filled in it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sample_data::Plan;
use secrecy::ExposeSecret as _;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgPool, Postgres, Row as _, Transaction};
use store::testing::TestDatabase;
use tokio::process::Command;
use url::Url;
use uuid::Uuid;

use crate::platform::Platform;
use crate::release::Part;

/// The catalogue that the tests export: small, with every awkward case.
pub const CATALOGUE: Plan = Plan {
    albums: 400,
    ratings: 8_000,
    seed: 11,
};

/// The test's database; dropped with this value. It has the catalogue and the programs' logins; the reports'
/// tables are made by the chart's hook.
pub struct Database {
    database: TestDatabase,
    /// By a superuser: the tests' own look at the tables.
    pub pool: PgPool,
    psql: PathBuf,
}

impl Database {
    /// Creates it, with a sample of the catalogue.
    pub async fn create(platform: &Platform) -> Self {
        let database = store::testing::catalogue_database().await;
        let pool = database.admin_pool.clone();
        sample_data::load(&pool, &CATALOGUE, false, |_| ())
            .await
            .expect("the sample loads into an empty database");
        Self {
            pool,
            psql: platform.psql.clone(),
            database,
        }
    }

    /// By the login that a program has.
    pub fn url(&self, part: Part) -> Url {
        let url = match part {
            Part::Api => &self.database.api_url,
            Part::Operator => &self.database.operator_url,
            Part::Exporter => &self.database.exporter_url,
            Part::Migrations => &self.database.owner_url,
        };
        url.expose_secret().parse().expect("a database URL is a URL")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.database.name
    }

    /// Locks a table, so that whoever reads it waits: an exporter is held in the middle of its work.
    pub async fn hold_table(&self, table: &str) -> Held {
        let mut transaction = self.pool.begin().await.expect("a transaction begins");
        let statement = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await
            .expect("the table can be locked");
        Held(transaction)
    }

    /// Runs a statement of the test's own making.
    pub async fn execute(&self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// The report's row, read independently of the product.
    pub async fn report(&self, id: Uuid) -> Option<ReportRow> {
        let row = sqlx::query("SELECT *, parameters::text AS parameters_text FROM reports WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .expect("the reports can be read");
        row.map(ReportRow)
    }

    /// The reports' ids, oldest first.
    pub async fn reports(&self) -> Vec<Uuid> {
        sqlx::query_scalar("SELECT id FROM reports ORDER BY created_at, id")
            .fetch_all(&self.pool)
            .await
            .expect("the reports can be read")
    }

    /// The outbox messages of a report as JSON, oldest first.
    pub async fn outbox(&self, report: Uuid) -> Vec<serde_json::Value> {
        self.json(&format!(
            "SELECT to_jsonb(m)::text FROM outbox_messages m WHERE aggregateid = '{report}' ORDER BY created_at, id"
        ))
        .await
    }

    /// Every row of both tables, for a person to read after a failure.
    pub async fn dump(&self) -> String {
        let mut text = String::new();
        let tables =
            "SELECT to_json(relname)::text FROM pg_class WHERE relname IN ('reports', 'outbox_messages')";
        for table in self.json(tables).await {
            let table = table.as_str().expect("a name is text");
            let rows = self
                .json(&format!(
                    "SELECT to_jsonb(t)::text FROM {table} t ORDER BY created_at"
                ))
                .await;
            for row in rows {
                text.push_str(&format!("{table}: {row}\n"));
            }
        }
        text
    }

    async fn json(&self, statement: &str) -> Vec<serde_json::Value> {
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(statement.to_owned()))
            .fetch_all(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
        rows.iter()
            .map(|row| serde_json::from_str(row).expect("to_jsonb gives JSON"))
            .collect()
    }

    /// Runs a script by the psql program, as somebody else would, and returns what it prints. The
    /// variables are psql's own (`:'name'` in the script).
    pub async fn psql(&self, script: &Path, variables: &[(&str, String)]) -> Vec<u8> {
        let mut url: Url = self.database.admin_url.expose_secret().parse().expect("a URL");
        // sqlx adds options of its own, which psql does not know.
        url.set_query(None);
        let mut command = Command::new(&self.psql);
        command
            .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file"])
            .arg(script);
        for (name, value) in variables {
            command.arg("--set").arg(format!("{name}={value}"));
        }
        let output = command
            .arg(url.as_str())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.psql.display()));
        assert!(
            output.status.success(),
            "psql failed on {}: {}",
            script.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }
}

/// A report's row.
pub struct ReportRow(PgRow);

impl ReportRow {
    /// The word for where it is.
    pub fn state(&self) -> String {
        self.0.get("state")
    }

    /// How many exporters have begun.
    pub fn attempts(&self) -> i32 {
        self.0.get("attempts")
    }

    /// A column of text.
    pub fn text(&self, column: &str) -> Option<String> {
        self.0.get(column)
    }

    /// A column of whole numbers.
    pub fn number(&self, column: &str) -> Option<i64> {
        self.0.get(column)
    }

    /// Whether a column holds a value.
    pub fn has(&self, column: &str) -> bool {
        use sqlx::ValueRef as _;
        !self
            .0
            .try_get_raw(column)
            .unwrap_or_else(|error| panic!("column {column}: {error}"))
            .is_null()
    }
}

/// A table that is locked until this is released or dropped.
pub struct Held(Transaction<'static, Postgres>);

impl Held {
    /// Lets the others go on.
    pub async fn release(self) {
        self.0.rollback().await.expect("a transaction can be rolled back");
    }
}
