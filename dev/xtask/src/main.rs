//! `cargo xtask`: the one door to every command of this repository.
//!
//! Each task prints the commands it runs, so that a reader can copy them.

mod checks;
mod layers;
mod project;
mod steps;
mod test;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use project::Project;

/// The one door to every command of this repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Format all code; with --check only say whether it is formatted
    Fmt {
        #[arg(long)]
        check: bool,
    },
    /// Run clippy on all targets; any warning is an error
    Lint,
    /// Check which crate may depend on which (docs/ARCHITECTURE.md)
    Layers,
    /// Check licences, sources and banned or doubled crates of all dependencies
    Deny,
    /// Run every test, each on real parts
    Test,
}

fn main() -> Result<()> {
    let Some(task) = Cli::parse().task else {
        return Ok(Cli::command().print_help()?);
    };
    let project = Project::find()?;
    match task {
        Task::Fmt { check } => checks::fmt(&project, check),
        Task::Lint => checks::lint(&project),
        Task::Layers => layers::check(&project),
        Task::Deny => checks::deny(&project),
        Task::Test => test::run(&project),
    }
}
