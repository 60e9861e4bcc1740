//! `cargo xtask demo`: one report, from the POST to the CSV, told as it happens.

mod journey;

use std::time::Instant;

use anyhow::{Context, Result};
pub use journey::{Journey, chapter};

use crate::{
    platform::{Instance, NAMESPACE, Platform, Sample},
    project::Project,
    steps::seconds,
};

/// # Errors
/// When the platform does not start, or the report does not end as it should.
pub fn run(project: &Project, sample: Sample) -> Result<()> {
    let began = Instant::now();
    let platform = Platform::open(project, Instance::Dev)?;
    platform.up(sample)?;
    let env = platform.env()?;
    let value = |name| {
        let found = env.iter().find(|(variable, _)| *variable == name);
        found
            .map(|(_, value)| value.clone())
            .with_context(|| format!("the platform has no {name}"))
    };
    println!("\n({} after the start of this command)", seconds(began.elapsed()));
    let (id, took) = Journey {
        project,
        url: value("API_URL")?,
        token: value("API_TOKEN")?,
        namespace: NAMESPACE,
        kubectl: &|| platform.kubectl(),
        file: project.root.join(".platform/dev/report.csv"),
        logs: "`cargo xtask logs operator` or `cargo xtask logs api`",
    }
    .tell()?;

    println!("\nFrom the POST to the finished file: {}.", seconds(took));
    chapter("Go on by hand");
    println!(
        "All of it is up and stays up.\n\
         \n  eval \"$(cargo xtask env)\"         API_URL, API_TOKEN, KUBECONFIG, the database URLs, …\
         \n  curl -i -X POST \"$API_URL/reports/popularity\" -H \"Authorization: Bearer $API_TOKEN\" \\\
         \n       -H 'Content-Type: application/json' -d '{{\"limit\": 10}}'\
         \n  curl -s \"$API_URL/reports/{id}\" -H \"Authorization: Bearer $API_TOKEN\"\
         \n  kubectl -n {NAMESPACE} get popularityreports -o wide\
         \n  cargo xtask status | logs operator | logs api\
         \n\nStop everything: cargo xtask down",
    );
    Ok(())
}
