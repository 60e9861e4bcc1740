//! The container images, built without a container engine and without a base image: the program, the libraries
//! that it loads, the certificates of the public authorities, and the time zones.
//!
//! Here, in seconds, from what cargo has built for this machine; in [`release`] as they are published.

mod archive;
mod buildah;
mod promises;
pub mod release;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use xshell::cmd;

use crate::{project::Project, steps::step};

/// The programs that have an image.
pub const PROGRAMS: &[&str] = &["api", "operator", "exporter"];

/// The tag of the images of the programs as they are.
pub const DEV: &str = "dev";

/// The tag of the images of the programs with their crash points.
pub const FAILPOINTS: &str = "failpoints";

/// What is built together: cargo builds a dependency anew for each selection that wants other features of it.
/// The tests switch on the crash points, and xtask is running.
pub const SELECTION: &[&str] = &["--workspace", "--exclude", "tests", "--exclude", "xtask"];

/// Data that programs look for at these paths: the certificates of the public authorities, and the time zones.
const DATA: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo"];

/// The name of the image of one program.
pub fn name(program: &str, tag: &str) -> String {
    format!("popularity-reports/{program}:{tag}")
}

/// An image in a docker-archive.
pub struct Image {
    pub name: String,
    pub archive: PathBuf,
}

/// Builds the programs, and what else the platform starts.
///
/// # Errors
/// When one does not build.
pub fn build_programs(project: &Project, profile: &str) -> Result<()> {
    step(&format!("build the programs ({profile} profile)"), || {
        Ok(cmd!(
            project.sh,
            "cargo build --profile {profile} {SELECTION...} --bins"
        )
        .run()?)
    })
}

/// Writes the images of all programs as they were built last: with their crash points, when the tag is to say
/// so.
///
/// # Errors
/// When one cannot be written.
pub fn write(project: &Project, profile: &str, tag: &str) -> Result<Vec<Image>> {
    write_some(project, profile, tag, PROGRAMS)
}

/// Writes the images of these programs of the workspace as they were built last.
///
/// # Errors
/// When one cannot be written.
pub fn write_some(project: &Project, profile: &str, tag: &str, programs: &[&str]) -> Result<Vec<Image>> {
    step(&format!("write the images, tagged {tag}"), || {
        let labels = labels(project)?;
        programs
            .iter()
            .map(|program| write_one(project, profile, program, tag, &labels))
            .collect()
    })
}

fn write_one(project: &Project, profile: &str, program: &str, tag: &str, labels: &[String]) -> Result<Image> {
    write_program(project, &project.built(profile, program), program, tag, labels)
}

/// Writes the image of one program that lies at `built`.
///
/// # Errors
/// When it cannot be written.
pub fn write_program(
    project: &Project,
    built: &Path,
    program: &str,
    tag: &str,
    labels: &[String],
) -> Result<Image> {
    let sh = &project.sh;
    let folder = project.target.join("images");
    fs::create_dir_all(&folder)?;
    let stripped = folder.join(format!("{program}-{tag}"));
    // symbols are most of a debug build, and the node would unpack them for every image
    cmd!(sh, "strip -o {stripped} {built}").quiet().run()?;
    let mut files = vec![format!("{}:/{program}", stripped.display())];
    let libraries = libraries(project, built)?;
    let data = DATA.iter().map(|path| (*path).to_owned());
    files.extend(
        libraries
            .into_iter()
            .chain(data)
            .map(|path| format!("{path}:{path}")),
    );
    let image = archived(project, program, tag);
    let labels = labels.iter().flat_map(|label| ["--label", label]);
    let title = format!("org.opencontainers.image.title=popularity-reports {program}");
    let (reference, archive) = (&image.name, &image.archive);
    cmd!(
        sh,
        "dev/cluster/cluster image {labels...} --label {title} {reference} {archive} {files...}"
    )
    .quiet()
    .run()?;
    Ok(image)
}

/// Where the image of a program with this tag is written, and how it is called.
pub fn archived(project: &Project, program: &str, tag: &str) -> Image {
    Image {
        name: name(program, tag),
        archive: project.target.join("images").join(format!("{program}-{tag}.tar")),
    }
}

/// What each image says of itself, by the keys of the OCI image specification.
fn labels(project: &Project) -> Result<Vec<String>> {
    let revision = cmd!(project.sh, "git rev-parse HEAD").quiet().read()?;
    Ok([
        ("version", env!("CARGO_PKG_VERSION")),
        ("licenses", env!("CARGO_PKG_LICENSE")),
        ("revision", &revision),
    ]
    .map(|(key, value)| format!("org.opencontainers.image.{key}={value}"))
    .to_vec())
}

/// The shared libraries that the program loads, and the loader itself, at the paths where it looks for them.
fn libraries(project: &Project, program: &Path) -> Result<Vec<String>> {
    let listed = cmd!(project.sh, "ldd {program}")
        .quiet()
        .read()
        .context("ldd cannot read the program")?;
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)"
    Ok(listed
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with('/'))
                .map(str::to_owned)
        })
        .collect())
}
