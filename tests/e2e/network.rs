//! NetworkPolicies, enforced: every flow that the chart names is open, and no other. The bundled cluster enforces
//! them after `dev/cluster/cluster netpol`, which `cargo xtask test` sees to.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use testkit::reports::SOON;
use testkit::{Part, Release, World, in_a_world, until};
use tokio::process::Command;

/// What may ask the API in these tests.
const CLIENT: &str = "client";

/// The chart's flows as they are here, where every neighbour is a port of one machine.
fn flows(world: &World) -> Value {
    let host = format!("{}/32", world.platform.pods_host);
    let to = |ports: &[u16]| json!({"cidrs": [host], "ports": ports});
    json!({
        "enabled": true,
        "clients": [{"podSelector": {"matchLabels": {CLIENT: "yes"}}}],
        "kubernetes": to(&[kubernetes(world).port()]),
        "database": to(&[database(world).port()]),
        "serviceBus": to(&[world.broker.address().port()]),
        "blob": to(&[blob(world).port()]),
    })
}

fn at_pods_host(world: &World, port: Option<u16>) -> SocketAddr {
    let port = port.expect("an address has a port");
    SocketAddr::new(world.platform.pods_host.parse().expect("an address"), port)
}

fn database(world: &World) -> SocketAddr {
    at_pods_host(world, world.database.url(Part::Api).port())
}

fn blob(world: &World) -> SocketAddr {
    at_pods_host(world, world.platform.blob_endpoint().port())
}

fn kubernetes(world: &World) -> SocketAddr {
    at_pods_host(world, Some(6443))
}

/// A Pod that belongs to nobody and does nothing.
async fn bystander(world: &World, name: &str, labels: Value) -> Pod {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "pause", "image": "docker.io/kc/pause:1", "imagePullPolicy": "Never",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }))
    .unwrap();
    world.cluster.put(&pod).await;
    let running = async || {
        let pod = world.cluster.api::<Pod>().get(name).await.ok()?;
        let phase = pod.status.as_ref()?.phase.clone()?;
        (phase == "Running").then_some(pod)
    };
    until(&format!("{name} runs"), SOON, running).await
}

fn address(pod: &Pod, port: u16) -> SocketAddr {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let ip = ip.expect("a running Pod has an address");
    SocketAddr::new(ip.parse().expect("an address"), port)
}

/// Whether a connection comes about from within the network of this process.
async fn reaches(process: &str, to: SocketAddr) -> bool {
    let (ip, port) = (to.ip().to_string(), to.port().to_string());
    Command::new("nsenter")
        .args(["--target", process, "--net", "timeout", "3", "bash", "-c"])
        .args(["exec 3<>/dev/tcp/$0/$1", &ip, &port])
        .stderr(std::process::Stdio::null())
        .status()
        .await
        .expect("nsenter can be run")
        .success()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster that enforces NetworkPolicies: `cargo xtask test` runs it after the others"]
async fn the_flows_that_the_chart_names_are_open_and_no_others() {
    in_a_world(async |world| {
        let mut setup = Release::setup(world);
        for (name, value) in flows(world).as_object().unwrap() {
            setup = setup.value(&format!("networkPolicy.{name}"), value.clone());
        }
        let release = setup.install().await;
        let held = world.database.hold_table("ratings").await;
        let application = release.application();
        let id = application.accepted(&json!({})).await;
        world.row_is(id, "Processing").await;
        let stranger = bystander(world, "stranger", json!({})).await;
        let client = bystander(world, "client", json!({CLIENT: "yes"})).await;
        let elsewhere = tokio::net::TcpListener::bind((world.platform.pods_host.as_str(), 0))
            .await
            .unwrap();

        let api = release.pods(Part::Api).await.remove(0);
        let operator = release.pods(Part::Operator).await.remove(0);
        let exporter = world.cluster.pods().await.remove(0);
        let places = [
            ("the database", database(world)),
            ("the broker", world.broker.address()),
            ("blob storage", blob(world)),
            ("the API server", kubernetes(world)),
            ("the API", address(&api, 8080)),
            ("the operator", address(&operator, 8081)),
            ("elsewhere", elsewhere.local_addr().unwrap()),
        ];
        //                      database broker blob  k8s    api    operator elsewhere
        // (a Pod always reaches itself)
        #[rustfmt::skip]
        let expected = [
            (&api,      [true, false, true, true,  true,  false, false]),
            (&operator, [true, true,  true, true,  false, true,  false]),
            (&exporter, [true, false, true, false, false, false, false]),
            (&client,   [true, true,  true, true,  true,  false, true]),
            (&stranger, [true, true,  true, true,  false, false, true]),
        ];

        // a new policy is heard of a moment after it was made
        let process = release.process(&exporter.name_any()).await;
        let refused = async || (!reaches(&process, kubernetes(world)).await).then_some(());
        until(
            "policies are enforced (dev/cluster/cluster netpol)",
            Duration::from_secs(30),
            refused,
        )
        .await;
        for (pod, expected) in expected {
            let name = pod.name_any();
            let process = release.process(&name).await;
            let tried = places.map(|(_, to)| reaches(&process, to));
            let reached = futures::future::join_all(tried).await;
            for ((place, _), (reached, expected)) in places.iter().zip(reached.iter().zip(expected)) {
                assert_eq!(*reached, expected, "{name} to {place}");
            }
        }

        // and with these the product does its work
        held.release().await;
        application.completed(id, SOON).await;
        world.completed_everywhere(id).await;
    })
    .await;
}
