//! What a platform keeps from one start to the next: its ports and the secrets it made.

use std::{collections::BTreeSet, fs, io::Read, net::TcpListener, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::process::write_private;

/// Ports and secrets of one platform.
#[derive(Serialize, Deserialize)]
pub struct Settings {
    pub ports: Ports,
    pub secrets: Secrets,
}

#[derive(Serialize, Deserialize)]
pub struct Ports {
    pub postgres: u16,
    pub blob: u16,
    pub servicebus: u16,
    pub servicebus_admin: u16,
}

/// Made for this platform alone; letters and digits only, unless said otherwise.
#[derive(Serialize, Deserialize)]
pub struct Secrets {
    /// Of the database cluster's superuser.
    pub postgres: String,
    pub owner: String,
    pub api: String,
    pub operator: String,
    pub exporter: String,
    /// (`catalogue` in files of earlier versions, which had no such login)
    #[serde(alias = "catalogue")]
    pub migrations: String,
    /// Base64, as a storage account's key is.
    pub blob_key: String,
    pub servicebus_key: String,
    pub jwt_key: String,
}

impl Settings {
    /// Those of the platform in `dir`; made and written down when there are none.
    ///
    /// # Errors
    /// When they cannot be read, made or written.
    pub fn load(dir: &Path) -> Result<Self> {
        let file = dir.join("settings.json");
        if file.exists() {
            let text = fs::read_to_string(&file)?;
            return serde_json::from_str(&text).with_context(|| {
                format!(
                    "{} is not readable: stop the platform and remove the folder {}",
                    file.display(),
                    dir.display()
                )
            });
        }
        let settings = Self {
            ports: Ports::free(dir)?,
            secrets: Secrets::new()?,
        };
        write_private(&file, &serde_json::to_string_pretty(&settings)?)?;
        Ok(settings)
    }
}

impl Ports {
    /// Free ones, searched from a place that the folder's name decides, so that two checkouts do not meet
    /// even when they are started by turns. Below the node ports of Kubernetes and the range that Linux
    /// gives to outgoing connections (30000 and 32768).
    fn free(dir: &Path) -> Result<Self> {
        const FIRST: u16 = 20_000;
        const COUNT: u16 = 9_990;
        let hash = crate::hash::sha256_hex(dir.as_os_str().as_encoded_bytes());
        let start = u16::from_str_radix(&hash[..4], 16)? / 10 * 10 % COUNT;
        let mut taken = BTreeSet::new();
        let mut next = || {
            (0..COUNT)
                .map(|n| FIRST + (start + n) % COUNT)
                .find(|port| !taken.contains(port) && TcpListener::bind(("0.0.0.0", *port)).is_ok())
                .inspect(|port| {
                    taken.insert(*port);
                })
                .context("no free port")
        };
        Ok(Self {
            postgres: next()?,
            blob: next()?,
            servicebus: next()?,
            servicebus_admin: next()?,
        })
    }
}

impl Secrets {
    fn new() -> Result<Self> {
        use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
        let word =
            || Ok::<_, anyhow::Error>(random::<24>()?.iter().map(|byte| format!("{byte:02x}")).collect());
        Ok(Self {
            postgres: word()?,
            owner: word()?,
            api: word()?,
            operator: word()?,
            exporter: word()?,
            migrations: word()?,
            blob_key: BASE64.encode(random::<64>()?),
            servicebus_key: BASE64.encode(random::<32>()?),
            jwt_key: word()?,
        })
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
