//! The list of components beside each image, in CycloneDX: the crates that the program itself says it was built
//! from (cargo-auditable), and the Debian packages that the image says its other files are from.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::archive::Contents;

/// Where the image keeps one file for each Debian package, as scanners of images without dpkg expect it.
const PACKAGES: &str = "/var/lib/dpkg/status.d";

/// Reads the program's list in `crates` and adds the packages of the image. What differs from one build of the
/// same commit to the next is left out.
///
/// # Errors
/// When the list cannot be read, or a package does not say its name and version.
pub fn complete(crates: &Path, image: &Contents, created: &str) -> Result<Value> {
    let mut list: Value = serde_json::from_slice(&fs::read(crates)?)?;
    if let Some(list) = list.as_object_mut() {
        list.remove("serialNumber");
    }
    list["metadata"]["timestamp"] = json!(created);
    let components = list["components"]
        .as_array_mut()
        .context("the program's list has no components")?;
    for (path, file) in &image.files {
        if path.starts_with(PACKAGES) && file.kind.is_file() {
            let status = String::from_utf8_lossy(&file.data);
            components.push(package(&status).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(list)
}

/// A package, from the fields of its control file.
fn package(status: &str) -> Result<Value> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .with_context(|| format!("no field {name}"))
    };
    let (name, version, architecture) = (field("Package")?, field("Version")?, field("Architecture")?);
    // https://github.com/package-url/purl-spec: a plus sign and a colon are written by number
    let written = version.replace('+', "%2B").replace(':', "%3A");
    let purl = format!("pkg:deb/debian/{name}@{written}?arch={architecture}&distro=debian-12");
    Ok(json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_known_by_name_version_and_machine() {
        let status =
            "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.36-9+deb12u1\n";
        let package = package(status).unwrap();
        assert_eq!(package["name"], "libc6");
        assert_eq!(
            package["purl"],
            "pkg:deb/debian/libc6@1%3A2.36-9%2Bdeb12u1?arch=amd64&distro=debian-12"
        );
    }

    #[test]
    fn a_package_without_a_version_is_refused() {
        let error = package("Package: libc6\nArchitecture: amd64\n").unwrap_err();
        assert!(error.to_string().contains("Version"), "{error}");
    }
}
