//! `cargo xtask kind`: the product as its users install it, on a kind cluster with all that it needs in the cluster, and
//! one report from the POST to the CSV downloaded outside the cluster.

mod images;
mod neighbours;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, bail};
use images::Images;
pub use images::build_programs;
use serde_json::json;
use xshell::{Cmd, cmd};

use crate::{
    demo::{Journey, chapter},
    platform::{Sample, TOKEN_LIFETIME, USER, cluster::Cluster, settings::Settings},
    project::Project,
    steps::{seconds, step, wait_for},
    token, tools,
};

/// The chart's release, and the namespace that it is in.
const RELEASE: &str = "popularity-reports";

const CHART: &str = "charts/popularity-reports";

/// Where `kind-config.yaml` publishes the API's port of the node.
const API_URL: &str = "http://127.0.0.1:18080";

/// What to make, and of what.
#[derive(clap::Args)]
pub struct Options {
    /// Remove the cluster and all that is in it
    #[arg(long)]
    delete: bool,
    #[command(flatten)]
    images: images::Source,
    #[command(flatten)]
    sample: Sample,
}

/// Makes the cluster, what the product needs in it, the product and a report; what is there already stays.
///
/// # Errors
/// When a step fails: which, and why.
pub fn run(project: &Project, options: &Options) -> Result<()> {
    if !tools::on_path(project, "docker") {
        bail!("kind needs Docker, whose program is not on the PATH; without Docker: cargo xtask kind-test");
    }
    let kind = Kind {
        project,
        dir: project.root.join(".platform/kind"),
        cluster: Cluster::kind(
            project,
            tools::need_kind(project)?,
            options.images.node_image.clone(),
        ),
        helm: tools::need_helm(project)?,
    };
    if options.delete {
        kind.delete()
    } else {
        kind.make(options)
    }
}

/// What each step needs.
struct Kind<'p> {
    project: &'p Project,
    /// Where its secrets are, and the downloaded report.
    dir: PathBuf,
    cluster: Cluster<'p>,
    helm: PathBuf,
}

impl<'p> Kind<'p> {
    fn make(&self, options: &Options) -> Result<()> {
        let began = Instant::now();
        fs::create_dir_all(&self.dir)?;
        let settings = Settings::load(&self.dir)?;
        let images = Images::build(self.project, &options.images)?;
        step("make the kind cluster", || {
            self.cluster.up(&self.dir)?;
            self.cluster.wait_ready()
        })?;
        step("load the images into its node", || images.load(&self.cluster))?;
        step(
            "install PostgreSQL, Azurite, Service Bus and a sample catalogue",
            || {
                let values = neighbours::values(&settings, &images, options.sample);
                self.namespace(neighbours::NAMESPACE, "baseline")?;
                let (namespace, chart) = (neighbours::NAMESPACE, neighbours::CHART);
                self.helm()
                    .args([
                        "upgrade",
                        "--install",
                        neighbours::NAMESPACE,
                        chart,
                        "--namespace",
                        namespace,
                    ])
                    // by standard input: a command line can be read by everybody on the machine
                    .args(["--values", "-", "--wait", "--timeout", "10m"])
                    .stdin(values.to_string())
                    .ignore_stdout()
                    .run()
                    .map_err(Into::into)
            },
        )?;
        step("install the chart", || {
            self.namespace(RELEASE, "restricted")?;
            self.cluster
                .kubectl()?
                .args(["apply", "--server-side", "--filename", "-"])
                .stdin(neighbours::secrets(&settings, &images, RELEASE).to_string())
                .run()?;
            let values = format!("{CHART}/values-kind.yaml");
            Ok(self
                .helm()
                .args(["upgrade", "--install", RELEASE, CHART, "--namespace", RELEASE])
                .args(["--values", &values, "--wait", "--timeout", "5m"])
                .run()?)
        })?;
        step("wait for the published port", || {
            // kube-proxy lets new endpoints in about once a second
            wait_for("the API outside the cluster", Duration::from_secs(30), || {
                let url = format!("{API_URL}/_health/ready");
                let ask = cmd!(
                    self.project.sh,
                    "curl --silent --fail --max-time 5 --output /dev/null {url}"
                );
                Ok(ask.quiet().ignore_stderr().run().is_ok())
            })
        })?;
        let took = self.report(&settings)?;
        step("run the chart's own tests", || {
            Ok(self
                .helm()
                .args(["test", RELEASE, "--namespace", RELEASE, "--timeout", "5m"])
                .run()?)
        })?;
        chapter("Go on by hand");
        println!(
            "From the POST to the finished file: {}; the whole command: {}.\n\
             \n  export KUBECONFIG={}\
             \n  kubectl -n {RELEASE} get popularityreports,pods\
             \n  helm -n {RELEASE} list\
             \n\nRemove all of it: cargo xtask kind --delete",
            seconds(took),
            seconds(began.elapsed()),
            self.cluster.kubeconfig()?.display(),
        );
        Ok(())
    }

    /// One report, asked for and fetched from outside the cluster.
    fn report(&self, settings: &Settings) -> Result<Duration> {
        let key = &settings.secrets.jwt_key;
        let (_, took) = Journey {
            project: self.project,
            url: API_URL.to_owned(),
            token: token::mint(key, USER, false, SystemTime::now(), TOKEN_LIFETIME)?,
            namespace: RELEASE,
            kubectl: &|| self.cluster.kubectl(),
            file: self.dir.join("report.csv"),
            logs: "`kubectl -n popularity-reports logs deployment/popularity-reports-operator`",
        }
        .tell()?;
        println!("$ kubectl -n {RELEASE} get popularityreports");
        let all = ["--namespace", RELEASE, "get", "popularityreports"];
        self.cluster.kubectl()?.args(all).quiet().run()?;
        Ok(took)
    }

    fn delete(&self) -> Result<()> {
        step("remove the kind cluster", || self.cluster.down(&self.dir))?;
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir)?;
        }
        Ok(())
    }

    /// A namespace in which this level of Pod Security is enforced.
    fn namespace(&self, name: &str, level: &str) -> Result<()> {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": level}},
        });
        let apply = self.cluster.kubectl()?;
        let apply = apply.args(["apply", "--server-side", "--filename", "-"]);
        Ok(apply.stdin(namespace.to_string()).run()?)
    }

    fn helm(&self) -> Cmd<'p> {
        let helm = self.project.sh.cmd(&self.helm);
        match self.cluster.kubeconfig() {
            Ok(kubeconfig) => helm.env("KUBECONFIG", kubeconfig),
            Err(_) => helm,
        }
    }
}
