//! Azurite, Microsoft's emulator of Blob Storage.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Result;
use rustix::process::Signal;
use xshell::cmd;

use super::{Base, process::Service};
use crate::{project::Project, steps::step};

pub const NAME: &str = "azurite";
pub const STOP: Signal = Signal::TERM;

/// The account's name; its key is this platform's own.
const ACCOUNT: &str = "reports";

/// Starts it on all addresses, since it takes one or all, and pods must reach it too.
///
/// # Errors
/// When it cannot be installed, does not start or does not answer.
pub fn up(base: &Base) -> Result<()> {
    let script = install(base.project)?.join(SCRIPT);
    let location = base.dir.join("azurite");
    fs::create_dir_all(&location)?;
    let port = base.settings.ports.blob;
    let mut args = vec![script.display().to_string()];
    args.extend(["--blobHost", "0.0.0.0", "--blobPort", &port.to_string()].map(str::to_owned));
    args.extend(["--location".to_owned(), location.display().to_string()]);
    // path-style addresses only: the host is an address or a name that is no account's
    args.extend(["--disableProductStyleUrl", "--disableTelemetry", "--silent"].map(str::to_owned));
    base.processes.start(&Service {
        name: NAME,
        program: PathBuf::from("/usr/bin/env"),
        args: ["node".to_owned()].into_iter().chain(args).collect(),
        env: vec![(
            "AZURITE_ACCOUNTS",
            format!("{ACCOUNT}:{}", base.settings.secrets.blob_key),
        )],
        user: None,
        stop: STOP,
    })?;
    base.processes.wait_ready(NAME, Duration::from_secs(60), || {
        // it answers, even if only to say that nobody is logged in
        let url = format!("http://127.0.0.1:{port}/{ACCOUNT}?comp=list");
        Ok(cmd!(
            base.project.sh,
            "curl --silent --max-time 2 --output /dev/null {url}"
        )
        .quiet()
        .run()
        .is_ok())
    })
}

/// The connection string, with Azurite at the address.
pub fn connection_string(base: &Base, host: &str) -> String {
    let key = &base.settings.secrets.blob_key;
    let endpoint = endpoint(base, host);
    format!("DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={endpoint};")
}

/// The account's endpoint, with Azurite at the address.
pub fn endpoint(base: &Base, host: &str) -> String {
    format!("http://{host}:{}/{ACCOUNT}", base.settings.ports.blob)
}

/// Its program, in the folder of [`install`].
const SCRIPT: &str = "node_modules/azurite/dist/src/blob/main.js";

/// Installs the locked packages, once for all checkouts, and tells in which folder.
///
/// # Errors
/// When npm fails.
pub fn install(project: &Project) -> Result<PathBuf> {
    let locked = project.root.join("dev/azurite");
    let lock = fs::read(locked.join("package-lock.json"))?;
    let place = project
        .cache
        .join("azurite")
        .join(&crate::hash::sha256_hex(&lock)[..16]);
    if !place.join(SCRIPT).exists() {
        step("install Azurite from npm", || {
            fs::create_dir_all(&place)?;
            for file in ["package.json", "package-lock.json"] {
                fs::copy(locked.join(file), place.join(file))?;
            }
            Ok(cmd!(
                project.sh,
                "npm ci --prefix {place} --omit optional --no-audit --no-fund --loglevel error"
            )
            .run()?)
        })?;
    }
    Ok(place)
}
