//! The product's own programs, run beside the cluster on this machine.

use std::{path::Path, time::Duration};

use anyhow::Result;
use rustix::process::Signal;
use serde_json::json;
use xshell::cmd;

use crate::images;

use super::{
    Base, LOOPBACK, NAMESPACE, azurite,
    postgres::{self, Login},
    process::Service,
    servicebus,
};

pub const API: &str = "api";
pub const OPERATOR: &str = "operator";

/// Both finish what they have begun on SIGTERM.
pub const STOP: Signal = Signal::TERM;

/// The secret that the exporter's pods take their settings from.
const EXPORTER_SECRET: &str = "popularity-report-exporter";

/// Brings the reports' tables up to date, as their owner.
///
/// # Errors
/// When a migration fails.
pub fn migrate(base: &Base) -> Result<()> {
    let operator = base.project.built("dev", OPERATOR);
    Ok(cmd!(base.project.sh, "{operator} migrate")
        .env(
            "REPORTS_DATABASE_URL",
            postgres::url(base, Login::Migrations, LOOPBACK),
        )
        .run()?)
}

/// Starts the API.
///
/// # Errors
/// When it does not start, or does not get ready.
pub fn start_api(base: &Base, kubeconfig: &Path) -> Result<()> {
    let ports = &base.settings.ports;
    start(
        base,
        API,
        ports.api,
        vec![
            ("API_LISTEN", format!("{LOOPBACK}:{}", ports.api)),
            ("JWT_KEY", base.settings.secrets.jwt_key.clone()),
            ("REPORTS_DATABASE_URL", postgres::url(base, Login::Api, LOOPBACK)),
            (
                "AZURE_STORAGE_CONNECTION_STRING",
                azurite::connection_string(base, LOOPBACK),
            ),
            ("REPORTS_NAMESPACE", NAMESPACE.to_owned()),
            ("KUBECONFIG", kubeconfig.display().to_string()),
        ],
    )
}

/// Where the API answers.
pub fn api_url(base: &Base) -> String {
    format!("http://{LOOPBACK}:{}", base.settings.ports.api)
}

/// Starts the operator.
///
/// # Errors
/// When it does not start, or does not get ready.
pub fn start_operator(base: &Base, kubeconfig: &Path) -> Result<()> {
    let ports = &base.settings.ports;
    start(
        base,
        OPERATOR,
        ports.operator,
        vec![
            ("HEALTH_LISTEN", format!("{LOOPBACK}:{}", ports.operator)),
            (
                "REPORTS_DATABASE_URL",
                postgres::url(base, Login::Operator, LOOPBACK),
            ),
            (
                "AZURE_STORAGE_CONNECTION_STRING",
                azurite::connection_string(base, LOOPBACK),
            ),
            (
                "SERVICEBUS_CONNECTION_STRING",
                servicebus::connection_string(base),
            ),
            ("SERVICEBUS_QUEUE", servicebus::QUEUE.to_owned()),
            ("REPORTS_NAMESPACE", NAMESPACE.to_owned()),
            ("EXPORTER_IMAGE", images::name("exporter", images::DEV)),
            ("EXPORTER_ENV_SECRET", EXPORTER_SECRET.to_owned()),
            ("KUBECONFIG", kubeconfig.display().to_string()),
        ],
    )
}

fn start(base: &Base, name: &'static str, port: u16, env: Vec<(&'static str, String)>) -> Result<()> {
    let program = base.project.built("dev", name);
    base.processes.start(&Service {
        name,
        program,
        args: Vec::new(),
        env,
        user: None,
        stop: STOP,
    })?;
    base.processes.wait_ready(name, Duration::from_secs(60), || {
        let url = format!("http://{LOOPBACK}:{port}/_health/ready");
        Ok(cmd!(
            base.project.sh,
            "curl --silent --fail --max-time 5 --output /dev/null {url}"
        )
        .quiet()
        .ignore_stderr()
        .run()
        .is_ok())
    })
}

/// The namespace of the reports, and in it what the exporter's pods need, as one JSON list.
pub fn exporter_secret(base: &Base, host: &str) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": EXPORTER_SECRET, "namespace": NAMESPACE},
            "stringData": {
                "REPORTS_DATABASE_URL": postgres::url(base, Login::Exporter, host),
                "CATALOG_DATABASE_URL": postgres::url(base, Login::Exporter, host),
                "AZURE_STORAGE_CONNECTION_STRING": azurite::connection_string(base, host),
            },
        },
    ]})
    .to_string()
}
