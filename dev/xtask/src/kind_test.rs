//! `cargo xtask kind-test`: `cargo xtask kind` on a machine without Docker: an engine of Debian's packages in namespaces of
//! its own, a node image made here, the same commands, and nothing left behind.

mod engine;
mod traces;

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, bail};
use engine::Engine;
use traces::Traces;
use xshell::cmd;

use crate::{
    hash::sha256_hex,
    images,
    platform::{azurite, cluster},
    project::Project,
    steps::{seconds, step},
    tools,
};

/// What the node is made of; its image is made again when one of these changes.
const NODE: &str = "dev/kind/node";

const NODE_IMAGE: &str = "popularity-reports/kind-node";

/// # Errors
/// When a step fails, or the machine is not as it was before.
pub fn run(project: &Project) -> Result<()> {
    let began = Instant::now();
    if !rustix::process::geteuid().is_root() {
        bail!(
            "kind-test starts a container engine, which only root can; with Docker on the machine: cargo xtask kind"
        );
    }
    prepare(project)?;
    let before = Traces::read()?;
    let result = on_engine(project);
    let after = Traces::read()?;
    let left = before.differences(&after);
    result?;
    if !left.is_empty() {
        bail!(
            "the machine is not as it was before the engine ran:\n  {}",
            left.join("\n  ")
        );
    }
    println!(
        "kind made, used and removed without a trace, after {}",
        seconds(began.elapsed())
    );
    Ok(())
}

/// Gets all that comes by the network: the engine's namespace has none.
fn prepare(project: &Project) -> Result<()> {
    tools::need_packages(project)?;
    tools::need_container_engine(project)?;
    tools::need_kind(project)?;
    tools::need_helm(project)?;
    azurite::install(project)?;
    step("build kc and CoreDNS", || {
        cluster::kc(project)?;
        Ok(cmd!(project.sh, "dev/cluster/cluster build-dns").run()?)
    })?;
    images::build_programs(project, "dev")
}

fn on_engine(project: &Project) -> Result<()> {
    let folder = project.cache.join("kind-test");
    fs::create_dir_all(&folder)?;
    let runtime = folder.join("runtime");
    step("build the runtime wrapper", || {
        let _folder = project.sh.push_dir("dev/kind/runtime");
        Ok(cmd!(project.sh, "go build -buildvcs=false -o {runtime} .")
            .env("CGO_ENABLED", "0")
            .run()?)
    })?;
    let engine = step("start the engine", || Engine::start(project, &folder, &runtime))?;
    let image = node_image(project, &engine, &folder)?;
    // this program: `cargo xtask kind`
    let xtask = std::env::current_exe()?;
    let task = |args: &[&str]| -> Result<()> { Ok(engine.inside(&xtask)?.arg("kind").args(args).run()?) };
    let made = task(&["--from-host", "--node-image", &image]);
    if made.is_err() {
        // what is removed next cannot be looked at any more
        engine.show_pods();
    }
    let removed = task(&["--delete"]);
    let stopped = step("stop the engine", || engine.stop());
    made.and(removed).and(stopped)
}

/// The image of kind's node, in the engine; made when there is none of these sources.
fn node_image(project: &Project, engine: &Engine, folder: &Path) -> Result<String> {
    let kc = cluster::kc(project)?;
    let bin = kc.parent().context("kc is in no folder")?;
    let mut sources = String::new();
    for list in ["kc.sources", "coredns.sources"] {
        sources.push_str(&fs::read_to_string(bin.join(list))?);
    }
    let files = cmd!(project.sh, "git ls-files {NODE}").quiet().read()?;
    for file in files.lines() {
        sources.push_str(&sha256_hex(&fs::read(project.root.join(file))?));
    }
    let image = format!("{NODE_IMAGE}:{}", &sha256_hex(sources.as_bytes())[..16]);
    if engine.has_image(&image) {
        return Ok(image);
    }
    step("make the image of kind's node", || {
        let (tar, work) = (folder.join("node.tar"), folder.join("node"));
        cmd!(project.sh, "{NODE}/build {bin} {tar} {work}").run()?;
        engine.remove_images(NODE_IMAGE)?;
        let entry = "ENTRYPOINT [\"/usr/local/bin/entrypoint\"]";
        engine
            .docker(&["import", "--change", entry])
            .arg(&tar)
            .arg(&image)
            .ignore_stdout()
            .run()?;
        Ok(fs::remove_file(&tar)?)
    })?;
    Ok(image)
}
