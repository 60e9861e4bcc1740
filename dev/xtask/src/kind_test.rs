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
    kind,
    platform::{azurite, cluster},
    project::Project,
    steps::{seconds, step},
    tools,
};

/// What the node is made of; its image is made again when one of these changes.
const NODE: &str = "dev/kind/node";

const NODE_IMAGE: &str = "popularity-reports/kind-node";

/// Which programs to put on kind.
#[derive(clap::Args)]
pub struct Options {
    /// Those that `cargo xtask test` has built, so that nothing is compiled again
    #[arg(long)]
    as_tested: bool,
}

/// # Errors
/// When a step fails, or the machine is not as it was before.
pub fn run(project: &Project, options: &Options) -> Result<()> {
    let began = Instant::now();
    if !rustix::process::geteuid().is_root() {
        bail!(
            "kind-test starts a container engine, which only root can; with Docker on the machine: cargo xtask kind"
        );
    }
    // asked for before anything is built: the build may put another file in the place of this one
    let xtask = std::env::current_exe()?;
    prepare(project, options)?;
    let before = Traces::read()?;
    let result = on_engine(project, options, &xtask);
    let after = Traces::read()?;
    let left = before.differences(&after);
    if !left.is_empty() {
        let left = left.join("\n  ");
        eprintln!("the machine is not as it was before the engine ran:\n  {left}");
    }
    result?;
    if !left.is_empty() {
        bail!("the machine is not as it was before the engine ran");
    }
    println!(
        "kind made, used and removed without a trace, after {}",
        seconds(began.elapsed())
    );
    Ok(())
}

/// Gets all that comes by the network: the engine's namespace has none.
fn prepare(project: &Project, options: &Options) -> Result<()> {
    tools::need_packages(project)?;
    tools::need_container_engine(project)?;
    tools::need_kind(project)?;
    tools::need_helm(project)?;
    azurite::install(project)?;
    step("build kc and CoreDNS", || {
        cluster::kc(project)?;
        Ok(cmd!(project.sh, "dev/cluster/cluster build-dns").run()?)
    })?;
    kind::build_programs(project, options.as_tested)
}

fn on_engine(project: &Project, options: &Options, xtask: &Path) -> Result<()> {
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
    let task = |args: &[&str]| -> Result<()> { Ok(engine.inside(xtask)?.arg("kind").args(args).run()?) };
    let mut make = vec!["--from-host", "--node-image", &image];
    make.extend(options.as_tested.then_some("--as-tested"));
    let made = task(&make);
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
