//! `cargo xtask test`: every test, each on real parts.

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use xshell::{Cmd, cmd};

use crate::{
    chart, images,
    platform::{Instance, Platform, cluster::Cluster},
    previous::{Previous, previous},
    privileges,
    project::Project,
    steps::{seconds, step},
    tools,
};

/// Everything is built together and with all features, crash points among them: so each crate is built once,
/// and the programs that the tests start and kill are the ones beside the tests.
const ALL: &[&str] = &["--workspace", "--all-features"];

/// The version of the test runner that is installed when there is none.
const NEXTEST: &str = "0.9.151";

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    /// Leave the tests' platform up: the next run starts sooner, and its state can be looked at
    #[arg(long)]
    keep: bool,
    /// Passed on to `cargo nextest run`, for example a test's name; then nothing else is run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<String>,
}

/// Starts the tests' platform, runs them, and stops it again.
///
/// # Errors
/// When a part fails; the other parts are run all the same.
pub fn run(project: &Project, options: &Options) -> Result<()> {
    tools::need_packages(project)?;
    tools::need_python(project)?;
    tools::need_go(project)?;
    tools::need_cargo_tool(project, "cargo-nextest", NEXTEST)?;
    let platform = Platform::open(project, Instance::Test)?;
    let mut parts = Parts::default();
    let ready = parts.run("build", || {
        step("build everything, the tests too", || build_all(project))
    });
    let mut before = None;
    let ready = ready
        && parts.run("the release before", || {
            before = Some(previous(project)?);
            Ok(())
        });
    let ready = ready
        && parts.run("platform", || {
            let mut images = images::write(project, "dev", images::FAILPOINTS)?;
            images.extend(before.iter_mut().flat_map(|before| before.images.drain(..)));
            platform.up_neighbours(&images)
        });
    if let Some(before) = before.filter(|_| ready) {
        run_on(project, &platform, &before, options, &mut parts);
    }
    if options.keep {
        eprintln!("the tests' platform stays up; cargo xtask down stops it");
    } else {
        parts.run("stop", || platform.down());
    }
    parts.result()
}

/// Builds everything, the tests and the crash points too.
///
/// # Errors
/// When something does not build.
pub fn build_all(project: &Project) -> Result<()> {
    Ok(cmd!(project.sh, "cargo build {ALL...} --all-targets").run()?)
}

fn run_on(project: &Project, platform: &Platform, before: &Previous, options: &Options, parts: &mut Parts) {
    let sh = &project.sh;
    if options.filter.is_empty() {
        parts.run("kind's configuration (Go)", || {
            step("kind's configuration, by kind's own code", || {
                let _folder = sh.push_dir("dev/kind-check");
                Ok(cmd!(sh, "go test -count=1 ./...").run()?)
            })
        });
        parts.run("documentation's examples", || {
            step("documentation's examples", || {
                Ok(cmd!(sh, "cargo test {ALL...} --doc").run()?)
            })
        });
    }
    let began = cmd!(sh, "date --utc +%FT%T.%6NZ").quiet().read();
    parts.run("tests", || {
        step("tests", || {
            let filter = &options.filter;
            let run = cmd!(sh, "cargo nextest run {ALL...} {filter...}");
            Ok(with_platform(run, project, platform)?
                .env("PREVIOUS_CHART", &before.chart)
                .env("PREVIOUS_IMAGE_TAG", &before.tag)
                .run()?)
        })
    });
    if options.filter.is_empty() {
        // last, because from here on every connection that a Pod makes is judged
        parts.run("NetworkPolicies, enforced", || {
            step("NetworkPolicies, enforced", || {
                if !Cluster::new(project).enforce_network_policies()? {
                    return Ok(());
                }
                let only = "test(/^network::/) & binary(e2e)";
                let run = cmd!(
                    sh,
                    "cargo nextest run {ALL...} --run-ignored ignored-only --filterset {only}"
                );
                Ok(with_platform(run, project, platform)?.run()?)
            })
        });
        // of some tests alone nothing would follow about all rights
        parts.run("rights granted and used", || {
            step("compare the rights granted with those used", || {
                privileges::check(project, &Cluster::new(project), &began?)
            })
        });
    }
}

/// What the tests take from the environment; see `tests/testkit/platform.rs`.
fn with_platform<'p>(command: Cmd<'p>, project: &Project, platform: &Platform) -> Result<Cmd<'p>> {
    Ok(command
        .envs(platform.env()?)
        .env("KUBECTL", platform.kubectl_program()?)
        .env("HELM", tools::need_helm(project)?)
        .env("PROMTOOL", tools::need_promtool(project)?)
        .env(
            "FOREIGN_DEFINITIONS",
            env::join_paths(chart::foreign_definitions(project)?)?,
        )
        .env("SDK_TESTS_CACHE", project.cache.join("sdk-tests"))
        .env("IMAGE_TAG", images::FAILPOINTS))
}

/// How long each part took, and which failed.
#[derive(Default)]
struct Parts {
    done: Vec<(&'static str, Duration)>,
    failed: Vec<(&'static str, anyhow::Error)>,
}

impl Parts {
    fn run(&mut self, name: &'static str, part: impl FnOnce() -> Result<()>) -> bool {
        let began = Instant::now();
        let result = part();
        self.done.push((name, began.elapsed()));
        match result {
            Ok(()) => true,
            Err(error) => {
                eprintln!("\nfailed: {name}: {error:#}\n");
                self.failed.push((name, error));
                false
            }
        }
    }

    fn result(self) -> Result<()> {
        eprintln!("\nwhat took how long:");
        for (name, took) in &self.done {
            eprintln!("  {:>12}  {name}", seconds(*took));
        }
        if self.failed.is_empty() {
            return Ok(());
        }
        let failed: Vec<_> = self
            .failed
            .iter()
            .map(|(name, error)| format!("{name}: {error:#}"))
            .collect();
        Err(anyhow!("{}", failed.join("\n")))
    }
}
