//! `cargo xtask`: the one door to every command of this repository.
//!
//! Each task prints the commands it runs, so that a reader can copy them.

mod bench;
mod chart;
mod checks;
mod demo;
mod generate;
mod hash;
mod images;
mod infra;
mod kind;
mod kind_test;
mod layers;
mod platform;
mod previous;
mod privileges;
mod project;
mod steps;
mod test;
mod token;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use platform::{Instance, Platform, Sample};
use project::Project;
use xshell::cmd;

/// The one door to every command of this repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Run the main job from nothing and tell it as it happens: one report from the POST to the CSV
    Demo {
        #[command(flatten)]
        sample: Sample,
    },
    /// Start the platform, the API and the operator; what is up stays up, what died is started again
    Up {
        #[command(flatten)]
        sample: Sample,
    },
    /// Stop all that up, demo or test started
    Down {
        /// Forget databases, blobs, messages and logs too
        #[arg(long)]
        data: bool,
    },
    /// Print shell exports for what is up: eval "$(cargo xtask env)"
    Env,
    /// Say what runs, and where its log is
    Status,
    /// Follow the log of one part, or of all
    Logs { part: Option<String> },
    /// Build the images of api, operator and exporter
    Images {
        /// The cargo profile to build with
        #[arg(long, default_value = "release", conflicts_with = "release")]
        profile: String,
        #[command(flatten)]
        options: images::release::Options,
    },
    /// Install the product on a kind cluster and make one report, from the POST to the CSV outside the cluster
    Kind(kind::Options),
    /// Run kind where there is no Docker: with an engine in namespaces of its own, without a trace
    KindTest(kind_test::Options),
    /// Check the Bicep files of infra/
    Infra,
    /// Run dev/cluster/cluster, for example `cargo xtask cluster kubectl get pods -A`
    #[command(disable_help_flag = true)]
    Cluster {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Format all code; with --check only say whether it is formatted
    Fmt {
        #[arg(long)]
        check: bool,
    },
    /// Run clippy on all targets and actionlint on the workflows; any warning is an error
    Lint,
    /// Check which crate may depend on which (docs/ARCHITECTURE.md)
    Layers,
    /// Check licences, sources and banned or doubled crates of all dependencies
    Deny,
    /// Make the generated files again: the resource's YAML and the descriptions of the queries
    Generate {
        /// Fail when one is out of date, and change nothing
        #[arg(long)]
        check: bool,
    },
    /// Check the chart: lint it, render it, package it, and ask the API server when the cluster is up
    Chart,
    /// Measure, as ratios against a peer in the same run
    Bench {
        #[command(flatten)]
        sample: Sample,
    },
    /// Run every test, each on real parts
    Test(test::Options),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let Some(task) = Cli::parse().task else {
        return Ok(Cli::command().print_help()?);
    };
    let project = Project::find()?;
    match task {
        Task::Demo { sample } => demo::run(&project, sample),
        Task::Up { sample } => Platform::open(&project, Instance::Dev)?.up(sample),
        Task::Down { data } => down(&project, data),
        Task::Env => Platform::read(&project, Instance::Dev)?.print_env(),
        Task::Status => Platform::read(&project, Instance::Dev)?.status(),
        Task::Logs { part } => Platform::read(&project, Instance::Dev)?.logs(part.as_deref()),
        Task::Images { options, .. } if options.release => images::release::run(&project, &options),
        Task::Images { profile, .. } => {
            images::build_programs(&project, &profile)?;
            for image in images::write(&project, &profile, images::DEV)? {
                println!("{} in {}", image.name, project.shown(&image.archive));
            }
            Ok(())
        }
        Task::Kind(options) => kind::run(&project, &options),
        Task::KindTest(options) => kind_test::run(&project, &options),
        Task::Infra => infra::check(&project),
        Task::Cluster { args } => Ok(cmd!(project.sh, "dev/cluster/cluster {args...}").quiet().run()?),
        Task::Fmt { check } => checks::fmt(&project, check),
        Task::Lint => checks::lint(&project),
        Task::Layers => layers::check(&project),
        Task::Deny => checks::deny(&project),
        Task::Generate { check } => generate::run(&project, check),
        Task::Chart => chart::check(&project),
        Task::Bench { sample } => bench::run(&project, sample),
        Task::Test(options) => test::run(&project, &options),
    }
}

/// Stops both of the checkout's platforms: the tests' one too may have been left by a crash.
fn down(project: &Project, data: bool) -> Result<()> {
    for instance in [Instance::Dev, Instance::Test] {
        let platform = Platform::open(project, instance)?;
        platform.down()?;
        if data {
            platform.forget()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
