//! The product, installed in a test's world by its own chart.

mod lifecycle;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStateTerminated, ContainerStatus, Pod, Service};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::process::Command;
use uuid::Uuid;

use crate::client::Application;
use crate::tokens::{self, Token};
use crate::until;
use crate::world::World;

/// The release's name, which is also how the names of the chart's objects begin.
pub const NAME: &str = "popularity-reports";
/// The time that Pods have to get ready, on a machine that is busy with other tests.
const START: Duration = Duration::from_secs(60);
/// How a container ends at a crash point: by SIGABRT (128 + 6); or by SIGSEGV (128 + 11), with which the C library
/// ends a process that SIGABRT does not end, as the first of a container, which the kernel spares.
/// <https://man7.org/linux/man-pages/man7/pid_namespaces.7.html>
const ABORTED: [i32; 2] = [134, 139];
/// The key and variable that name the crash points.
const FAILPOINTS: &str = "FAILPOINTS";

/// What the chart runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The REST service's Deployment.
    Api,
    /// The operator's Deployment.
    Operator,
    /// The Jobs that the operator makes.
    Exporter,
    /// The hook that brings the tables up to date.
    Migrations,
}

impl Part {
    const ALL: [Self; 4] = [Self::Api, Self::Operator, Self::Exporter, Self::Migrations];

    /// As the chart's values and labels name it; its Secret is named so too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Operator => "operator",
            Self::Exporter => "exporter",
            Self::Migrations => "migrations",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the product is to be installed.
#[must_use]
pub struct Setup<'a> {
    world: &'a World,
    chart: PathBuf,
    values: Value,
    secrets: BTreeMap<Part, BTreeMap<String, String>>,
    without_secret: Option<Part>,
    crash_points: BTreeMap<Part, String>,
}

impl<'a> Setup<'a> {
    /// A value of the chart, by its path, such as `operator.maxInFlight`.
    pub fn value(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.values, path, value.into());
        self
    }

    /// A variable of a program's environment.
    pub fn env(self, part: Part, name: &str, value: &str) -> Self {
        self.variable(part, json!({"name": name, "value": value}))
    }

    fn variable(mut self, part: Part, variable: Value) -> Self {
        let variables = &mut self.values[part.name()]["extraEnv"];
        if variables.is_null() {
            *variables = json!([]);
        }
        let variables = variables.as_array_mut().expect("extraEnv is a list");
        variables.retain(|known| known["name"] != variable["name"]);
        variables.push(variable);
        self
    }

    /// Another value for a key of a program's Secret.
    pub fn secret(mut self, part: Part, key: &str, value: &str) -> Self {
        let secret = self.secrets.entry(part).or_default();
        secret.insert(key.to_owned(), value.to_owned());
        self
    }

    /// A program's Secret is not there; [`Release::make_secret`] makes it.
    pub fn without_secret(mut self, part: Part) -> Self {
        self.without_secret = Some(part);
        self
    }

    /// With no Pod of this Deployment to begin with.
    pub fn without(self, part: Part) -> Self {
        self.replicas(part, 0)
    }

    /// With so many Pods of this Deployment.
    pub fn replicas(self, part: Part, replicas: i32) -> Self {
        self.value(&format!("{part}.replicas"), replicas)
    }

    /// The process ends, as if killed, when it comes to this point. Its container stays down until
    /// [`Release::start_again`].
    pub fn crash_at(mut self, part: Part, point: &str) -> Self {
        self.crash_points.insert(part, format!("{point}=return"));
        let from = json!({"configMapKeyRef": {"name": crash_points(part), "key": FAILPOINTS}});
        self.variable(part, json!({"name": FAILPOINTS, "valueFrom": from}))
    }

    /// Exporters end, as if killed, when they come to this point.
    pub fn exporter_crashes_at(self, point: &str) -> Self {
        self.env(Part::Exporter, FAILPOINTS, &format!("{point}=return"))
    }

    /// API and operator reach the API server by the world's forwarder, which can be told to fail.
    pub fn by_the_forwarder(mut self) -> Self {
        let address = self.world.cluster.proxy.address();
        for part in [Part::Api, Part::Operator] {
            self = self
                .env(part, "KUBERNETES_SERVICE_HOST", &address.ip().to_string())
                .env(part, "KUBERNETES_SERVICE_PORT", &address.port().to_string());
        }
        self
    }

    /// Installs it and waits until every Pod is ready.
    pub async fn install(self) -> Release<'a> {
        let points = self.crash_points.clone();
        let release = self.install_without_waiting().await;
        release.ready().await;
        // The container that crashes is started again by the kubelet, unless what it needs is gone.
        for part in points.keys() {
            let maps = release.world.cluster.api::<ConfigMap>();
            let deleted = maps.delete(&crash_points(*part), &DeleteParams::default()).await;
            deleted.expect("a ConfigMap can be deleted");
        }
        release
    }

    /// Installs it and does not wait for its Pods, which may never get ready.
    pub async fn install_without_waiting(self) -> Release<'a> {
        let Self {
            world,
            chart,
            values,
            secrets,
            without_secret,
            crash_points: points,
        } = self;
        for part in Part::ALL {
            if without_secret == Some(part) {
                continue;
            }
            let mut secret = world.environment(part);
            secret.extend(secrets.get(&part).cloned().unwrap_or_default());
            world.cluster.put_secret(part.name(), secret).await;
        }
        for (part, point) in points {
            let map = BTreeMap::from([(FAILPOINTS.to_owned(), point)]);
            world.cluster.put_config_map(&crash_points(part), map).await;
        }
        let mut release = Release {
            world,
            chart,
            values,
            url: String::new(),
        };
        release.helm("install").await;
        release.url = release.service_url().await;
        release
    }
}

/// The product, installed.
pub struct Release<'a> {
    world: &'a World,
    chart: PathBuf,
    values: Value,
    url: String,
}

impl Release<'_> {
    /// With the world's database, queue, container and namespace; one Pod each of API and operator.
    pub fn setup(world: &World) -> Setup<'_> {
        let small = json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}});
        let secret = |part: Part| json!({"name": part.name()});
        Setup {
            world,
            chart: world.platform.chart.clone(),
            values: json!({
                "images": {"tag": world.platform.image_tag, "pullPolicy": "Never"},
                // One definition for all tests: see `cluster`.
                "crds": {"install": false},
                // The neighbours have other ports in every test; the tests of the network name them.
                "networkPolicy": {"enabled": false},
                "secrets": {
                    "api": secret(Part::Api),
                    "operator": secret(Part::Operator),
                    "exporter": secret(Part::Exporter),
                    "migrations": secret(Part::Migrations),
                },
                "blob": {"container": world.container.name},
                "api": {"replicas": 1, "resources": small},
                "operator": {"replicas": 1, "resources": small},
                "exporter": {"resources": {"cpu": "10m", "memory": "128Mi"}},
                "migrations": {"resources": small},
            }),
            secrets: BTreeMap::new(),
            without_secret: None,
            crash_points: BTreeMap::new(),
        }
    }
}

impl Release<'_> {
    /// Upgrades it with another value; waits for its hooks and not for its Pods.
    pub async fn upgrade(&mut self, path: &str, value: impl Into<Value>) {
        set(&mut self.values, path, value.into());
        self.helm("upgrade").await;
    }

    async fn helm(&self, verb: &str) {
        let world = self.world;
        let chart = self.chart.display().to_string();
        let arguments = [verb, NAME, &chart, "--values", "-", "--timeout", "120s"];
        let answer = world.cluster.helm(&arguments, &self.values.to_string()).await;
        assert!(answer.succeeded, "helm {verb}: {}", answer.stderr);
    }

    /// Makes the Secret of a program that was installed without it.
    pub async fn make_secret(&self, part: Part) {
        let secret = self.world.environment(part);
        self.world.cluster.put_secret(part.name(), secret).await;
    }

    /// Waits until every Pod of both Deployments is ready.
    pub async fn ready(&self) {
        tokio::join!(self.part_ready(Part::Api), self.part_ready(Part::Operator));
    }

    /// Waits until a Deployment has as many Pods as it should, all of them are ready, and, for the API, its
    /// Service leads to one.
    pub async fn part_ready(&self, part: Part) {
        let ready = async || {
            let wanted = self.deployment(part).await.spec?.replicas?;
            let pods = self.pods(part).await;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            let all = pods.len() == ready && i32::try_from(ready) == Ok(wanted);
            all.then_some(wanted)
        };
        let pods = until(&format!("all Pods of the {part} are ready"), START, ready).await;
        if part == Part::Api && pods > 0 {
            let url = format!("{}/_health/ready", self.url);
            let answers = async || {
                let answer = reqwest::get(&url).await.ok()?;
                answer.status().is_success().then_some(())
            };
            until("the API's Service answers", START, answers).await;
        }
    }

    /// The address of the API's Service: this machine reaches it as Pods do.
    async fn service_url(&self) -> String {
        let service = self.world.cluster.api::<Service>().get(&object(Part::Api)).await;
        let spec = service.expect("the API has a Service").spec;
        let spec = spec.expect("a Service has a specification");
        let address = spec.cluster_ip.expect("a Service has a cluster address");
        let port = spec.ports.expect("a Service has ports")[0].port;
        format!("http://{address}:{port}")
    }

    /// An application of a new user.
    pub fn application(&self) -> Application {
        self.application_of(&tokens::a_user(Uuid::new_v4()))
    }

    /// An application with this token.
    pub fn application_of(&self, token: &Token) -> Application {
        Application::new(&self.url, token)
    }

    async fn deployment(&self, part: Part) -> Deployment {
        let deployments = self.world.cluster.api::<Deployment>();
        let deployment = deployments.get(&object(part)).await;
        deployment.expect("the chart has installed it")
    }

    /// A Deployment's Pods, or the exporter's, that are not being deleted.
    pub async fn pods(&self, part: Part) -> Vec<Pod> {
        let labels = format!("app.kubernetes.io/component={part}");
        let pods = self.world.cluster.api::<Pod>();
        let list = pods.list(&ListParams::default().labels(&labels)).await;
        let mut pods = list.expect("the API server answers").items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods
    }

    /// Changes how many Pods a Deployment has, and waits until they are ready.
    pub async fn scale(&self, part: Part, replicas: i32) {
        let deployments = self.world.cluster.api::<Deployment>();
        let scale = json!({"spec": {"replicas": replicas}});
        deployments
            .patch_scale(&object(part), &PatchParams::default(), &Patch::Merge(&scale))
            .await
            .expect("a Deployment can be scaled");
        self.part_ready(part).await;
    }

    /// Waits until a container of a Deployment has ended at its crash point.
    pub async fn crashed(&self, part: Part, limit: Duration) {
        let ended = async || {
            let pods = self.pods(part).await;
            pods.iter()
                .find_map(|pod| container(pod).and_then(termination).cloned())
        };
        let ended = until(&format!("the {part} crashes"), limit, ended).await;
        assert!(ABORTED.contains(&ended.exit_code), "{ended:?}");
    }

    /// Replaces what has crashed by a Pod that does not.
    pub async fn start_again(&self, part: Part) {
        let none = BTreeMap::from([(FAILPOINTS.to_owned(), String::new())]);
        self.world.cluster.put_config_map(&crash_points(part), none).await;
        let pods = self.world.cluster.api::<Pod>();
        for pod in self.pods(part).await {
            let at_once = DeleteParams::default().grace_period(0);
            let deleted = pods.delete(&pod.name_any(), &at_once).await;
            deleted.expect("a Pod can be deleted");
        }
        self.part_ready(part).await;
    }

    /// The process of a Pod's container, by its number: the bundled cluster's containers are processes of this
    /// machine.
    pub async fn process(&self, pod: &str) -> String {
        let pods = self.world.cluster.api::<Pod>();
        let running = async || {
            let pod = pods.get(pod).await.expect("the Pod is there");
            let id = container(&pod)?.container_id.clone()?;
            Some(id.rsplit_once("//")?.1.to_owned())
        };
        process_of(&until("the Pod has a container", START, running).await)
    }

    /// Kills the process of a Pod's container, as a lack of memory would: with no warning.
    pub async fn kill(&self, pod: &str) {
        let process = self.process(pod).await;
        let killed = Command::new("kill").args(["-KILL", &process]).status().await;
        assert!(
            killed.is_ok_and(|status| status.success()),
            "cannot kill process {process} of {pod}"
        );
    }

    /// How often containers of a Deployment have been started again.
    pub async fn restarts(&self, part: Part) -> i32 {
        let pods = self.pods(part).await;
        pods.iter()
            .filter_map(container)
            .map(|container| container.restart_count)
            .sum()
    }

    /// What a Deployment's Pods have written since their containers were started last.
    pub async fn log(&self, part: Part) -> String {
        let mut text = String::new();
        for pod in self.pods(part).await {
            let pods = self.world.cluster.api::<Pod>();
            let log = pods.logs(&pod.name_any(), &LogParams::default()).await;
            text.push_str(&log.expect("a Pod's log can be read"));
        }
        text
    }
}

/// Sets a value by its path.
fn set(values: &mut Value, path: &str, value: Value) {
    let mut at = values;
    for part in path.split('.') {
        at = &mut at[part];
    }
    *at = value;
}

/// The name of a Deployment of the chart.
fn object(part: Part) -> String {
    format!("{NAME}-{part}")
}

/// The ConfigMap that holds a program's crash points.
fn crash_points(part: Part) -> String {
    format!("crash-points-{part}")
}

/// Whether a Pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

/// What the kubelet says of a Pod's container; the chart's Pods have one each.
pub fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// How a container has ended, started again or not.
fn termination(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    [&container.state, &container.last_state]
        .into_iter()
        .find_map(|state| state.as_ref()?.terminated.as_ref())
}

/// The process of a container of the bundled cluster, whose containers are processes of this machine.
fn process_of(container: &str) -> String {
    let processes = std::fs::read_dir("/proc").expect("/proc can be read");
    processes
        .flatten()
        .find(|process| {
            // One that has ended meanwhile has no groups.
            let groups = std::fs::read_to_string(process.path().join("cgroup"));
            groups.is_ok_and(|groups| groups.contains(container))
        })
        .and_then(|process| process.file_name().into_string().ok())
        .unwrap_or_else(|| panic!("no process of this machine is in container {container}"))
}
