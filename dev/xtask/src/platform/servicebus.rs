//! The project's own Service Bus emulator.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use xshell::cmd;

use super::{Base, LOOPBACK, process::Service, settings::Settings};

pub const NAME: &str = "servicebus-emulator";
pub const STOP: Signal = Signal::TERM;

/// The queue of export requests.
pub const QUEUE: &str = "report-requests";

/// Starts it, listening on the loopback and where pods reach this machine.
///
/// # Errors
/// When it does not start, or does not answer.
pub fn up(base: &Base, host_address: &str) -> Result<()> {
    let Settings { ports, secrets } = &base.settings;
    let data = base.dir.join("servicebus");
    let admin = format!("{LOOPBACK}:{}", ports.servicebus_admin);
    let args = [
        ("--listen", format!("{LOOPBACK}:{}", ports.servicebus)),
        ("--listen", format!("{host_address}:{}", ports.servicebus)),
        ("--admin-listen", admin.clone()),
        ("--queue", format!("{QUEUE},duplicate-detection=10m")),
        ("--data", data.display().to_string()),
    ];
    base.processes.start(&Service {
        name: NAME,
        program: base.project.built("dev", NAME),
        args: args
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect(),
        env: vec![("SERVICEBUS_EMULATOR_KEY", secrets.servicebus_key.clone())],
        user: None,
        stop: STOP,
    })?;
    base.processes.wait_ready(NAME, Duration::from_secs(30), || {
        let url = format!("http://{admin}/_health");
        Ok(cmd!(
            base.project.sh,
            "curl --silent --fail --max-time 2 --output /dev/null {url}"
        )
        .quiet()
        .run()
        .is_ok())
    })
}

/// The connection string, as the official clients take it, with the emulator at the address.
pub fn connection_string(base: &Base, host: &str) -> String {
    let Settings { ports, secrets } = &base.settings;
    format!(
        "Endpoint=sb://{host}:{};SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey={};\
         UseDevelopmentEmulator=true;",
        ports.servicebus, secrets.servicebus_key
    )
}
