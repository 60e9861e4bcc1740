//! The release before this checkout, which the tests upgrade from: its chart, and its images.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use xshell::cmd;

use crate::{
    images::{self, Image},
    project::Project,
    steps::step,
};

/// Names the commit where no tag does: in a clone without tags, and before the first release.
const FILE: &str = "tests/e2e/previous-release";
/// What of a commit its chart is made of: the definition in it is a link.
const CHART_SOURCES: &[&str] = &["charts", "crds/yaml"];

/// The release before.
pub struct Previous {
    /// Its chart's folder.
    pub chart: PathBuf,
    /// The tag of its images.
    pub tag: String,
    /// Its images.
    pub images: Vec<Image>,
}

/// Makes chart and images of the release before, unless they were made before: they are kept by the commit's
/// id.
///
/// # Errors
/// When the commit is not in this clone, or does not build.
pub fn previous(project: &Project) -> Result<Previous> {
    let commit = commit(project)?;
    let tag = format!("previous-{}", &commit[..12]);
    let images: Vec<_> = images::PROGRAMS
        .iter()
        .map(|program| images::archived(project, program, &tag))
        .collect();
    let folder = project.target.join("previous").join(&commit[..12]);
    let chart = folder.join(crate::chart::CHART);
    if !chart.exists() {
        unpack(project, &commit, CHART_SOURCES, &folder)?;
    }
    if !images.iter().all(|image| image.archive.exists()) {
        step(&format!("build the release before this one ({tag})"), || {
            build(project, &commit, &folder.join("build"), &tag)
        })?;
    }
    Ok(Previous { chart, tag, images })
}

/// The newest tag of a version before this commit; without one, what [`FILE`] says.
fn commit(project: &Project) -> Result<String> {
    let sh = &project.sh;
    let tagged = cmd!(sh, "git describe --tags --abbrev=0 --match v* HEAD^")
        .quiet()
        .ignore_stderr()
        .read();
    let name = match tagged {
        Ok(tag) => tag,
        Err(_) => sh.read_file(FILE)?.trim().to_owned(),
    };
    let revision = format!("{name}^{{commit}}");
    cmd!(sh, "git rev-parse --verify --quiet {revision}")
        .quiet()
        .read()
        .with_context(|| {
            format!("the release before, {name}, is not in this clone: git fetch --unshallow --tags")
        })
}

fn unpack(project: &Project, commit: &str, paths: &[&str], folder: &Path) -> Result<()> {
    let sh = &project.sh;
    fs::create_dir_all(folder)?;
    let archive = folder.with_extension("tar");
    cmd!(
        sh,
        "git archive --format tar --output {archive} {commit} {paths...}"
    )
    .quiet()
    .run()?;
    cmd!(sh, "tar --extract --file {archive} --directory {folder}")
        .quiet()
        .run()?;
    Ok(fs::remove_file(archive)?)
}

/// In a build folder of its own: cargo takes a crate of one checkout for that of another in the same folder, and what
/// it compares is times, which say nothing between the two.
fn build(project: &Project, commit: &str, folder: &Path, tag: &str) -> Result<()> {
    let sh = &project.sh;
    let (source, target) = (folder.join("source"), folder.join("target"));
    unpack(project, commit, &[], &source)?;
    let selection = images::SELECTION;
    {
        let _source = sh.push_dir(&source);
        // no debugging information: nobody will debug it, and the image would be stripped of it
        cmd!(
            sh,
            "cargo build --config profile.dev.debug=false {selection...} --bins"
        )
        .env("CARGO_TARGET_DIR", &target)
        .run()?;
    }
    let labels = [format!("org.opencontainers.image.revision={commit}")];
    for program in images::PROGRAMS {
        images::write_program(
            project,
            &target.join("debug").join(program),
            program,
            tag,
            &labels,
        )?;
    }
    Ok(fs::remove_dir_all(folder)?)
}
