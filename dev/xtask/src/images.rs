//! The container images, built without a container engine and without a base image: the program, the libraries
//! that it loads, and the certificates of the public authorities.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use xshell::cmd;

use crate::{platform::cluster, project::Project, steps::step};

/// The programs that have an image.
pub const PROGRAMS: &[&str] = &["api", "operator", "exporter"];

/// The exporter's image with its crash points.
pub const FAILPOINTS: &str = "popularity-reports/exporter:failpoints";

/// The exporter's image as the operator is told to use it here.
pub const EXPORTER: &str = "popularity-reports/exporter:dev";

/// What is built together: cargo builds a dependency anew for each selection that wants other features of it.
/// The tests switch on the crash points, and xtask is running.
const SELECTION: &[&str] = &["--workspace", "--exclude", "tests", "--exclude", "xtask"];

const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

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

/// Builds the programs and writes their images, tagged `dev`.
///
/// # Errors
/// When a program does not build, or an image cannot be written.
pub fn build(project: &Project, profile: &str) -> Result<Vec<Image>> {
    build_programs(project, profile)?;
    step("write the images", || {
        PROGRAMS
            .iter()
            .map(|program| write(project, profile, program, "dev"))
            .collect()
    })
}

/// Writes the exporter's image from the program as it was built last, which must have been with its crash
/// points, for the tests that kill it there.
///
/// # Errors
/// When it cannot be written.
pub fn write_failpoints(project: &Project) -> Result<Image> {
    step("write the image of the exporter with crash points", || {
        write(project, "dev", "exporter", "failpoints")
    })
}

/// Writes the image of one program.
///
/// # Errors
/// When it cannot be written.
pub fn write(project: &Project, profile: &str, name: &str, tag: &str) -> Result<Image> {
    let program = &project.built(profile, name);
    let sh = &project.sh;
    let kc = cluster::kc(project)?;
    let folder = project.target.join("images");
    fs::create_dir_all(&folder)?;
    let stripped = folder.join(format!("{name}-{tag}"));
    // symbols are most of a debug build, and the node would unpack them for every image
    cmd!(sh, "strip -o {stripped} {program}").quiet().run()?;
    let mut files = vec![format!("{}:/{name}", stripped.display())];
    files.extend(
        libraries(project, program)?
            .iter()
            .map(|library| format!("{library}:{library}")),
    );
    files.push(format!("{CERTIFICATES}:{CERTIFICATES}"));
    let image = Image {
        name: format!("popularity-reports/{name}:{tag}"),
        archive: folder.join(format!("{name}-{tag}.tar")),
    };
    let (reference, archive) = (&image.name, &image.archive);
    cmd!(sh, "{kc} image {reference} {archive} {files...}").run()?;
    Ok(image)
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
