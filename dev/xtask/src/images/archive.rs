//! Reads an image from an OCI archive: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::hash::sha256_hex;

/// What an image is made of.
pub struct Contents {
    /// The digest of its manifest, by which it is deployed.
    pub digest: String,
    /// The bytes that a node downloads: configuration and layers, compressed.
    pub size: u64,
    pub config: Value,
    /// By absolute path; a later layer's file stands for an earlier one's.
    pub files: BTreeMap<PathBuf, Entry>,
}

/// One file, folder or link.
pub struct Entry {
    pub kind: tar::EntryType,
    pub mode: u32,
    pub data: Vec<u8>,
}

/// Reads the only image of an archive, and checks each part against its digest.
///
/// # Errors
/// When it cannot be read, or is not what its index says.
pub fn read(archive: &Path) -> Result<Contents> {
    let mut parts = BTreeMap::new();
    for entry in tar::Archive::new(File::open(archive)?).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data)?;
        parts.insert(path, data);
    }
    let index: Value = serde_json::from_slice(parts.get(Path::new("index.json")).context("no index.json")?)?;
    let blob = |descriptor: &Value| -> Result<(String, &Vec<u8>)> {
        let digest = descriptor["digest"].as_str().context("a part without a digest")?;
        let hex = digest
            .strip_prefix("sha256:")
            .context("a digest that is not SHA-256")?;
        let data = parts
            .get(&Path::new("blobs/sha256").join(hex))
            .with_context(|| format!("no {digest}"))?;
        if sha256_hex(data) != hex {
            bail!("the part {digest} is not what its name says");
        }
        Ok((digest.to_owned(), data))
    };
    let [manifest] = index["manifests"].as_array().map_or(&[][..], Vec::as_slice) else {
        bail!("not exactly one image in the archive");
    };
    let (digest, manifest) = blob(manifest)?;
    let manifest: Value = serde_json::from_slice(manifest)?;
    let (_, config) = blob(&manifest["config"])?;
    let mut contents = Contents {
        digest,
        size: config.len() as u64,
        config: serde_json::from_slice(config)?,
        files: BTreeMap::new(),
    };
    for layer in manifest["layers"].as_array().context("no layers")? {
        let (_, layer) = blob(layer)?;
        contents.size += layer.len() as u64;
        unpack(layer, &mut contents.files)?;
    }
    Ok(contents)
}

fn unpack(layer: &[u8], files: &mut BTreeMap<PathBuf, Entry>) -> Result<()> {
    for entry in tar::Archive::new(GzDecoder::new(layer)).entries()? {
        let mut entry = entry?;
        let path = Path::new("/").join(entry.path()?);
        let mut data = Vec::new();
        entry.read_to_end(&mut data)?;
        let header = entry.header();
        let (kind, mode) = (header.entry_type(), header.mode()?);
        files.insert(path, Entry { kind, mode, data });
    }
    Ok(())
}
