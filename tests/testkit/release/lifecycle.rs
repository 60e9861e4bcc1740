//! A release's further life: upgraded, rolled back, uninstalled, installed again.

use super::{NAME, Release, Setup};

/// How long a rollout may take: Pods one after the other, each with its time to say goodbye.
const ROLLOUT: &str = "150s";

impl Setup<'_> {
    /// The release before this one instead, with its own images.
    pub fn previous_release(self) -> Self {
        let (chart, tag) = self.world.platform.previous_release();
        Self { chart, ..self }.value("images.tag", tag)
    }
}

impl Release<'_> {
    /// From the release before to this checkout's chart and images; waits until the old Pods are replaced.
    pub async fn upgrade_to_this(&mut self) {
        let platform = &self.world.platform;
        self.chart = platform.chart.clone();
        self.values["images"]["tag"] = platform.image_tag.clone().into();
        let chart = self.chart.display().to_string();
        let upgrade = [
            "upgrade",
            NAME,
            &chart,
            "--values",
            "-",
            "--wait",
            "--timeout",
            ROLLOUT,
        ];
        self.run(&upgrade, &self.values.to_string()).await;
    }

    /// To the revision before; waits until the Pods are replaced.
    pub async fn roll_back(&self) {
        self.run(&["rollback", NAME, "--wait", "--timeout", ROLLOUT], "")
            .await;
    }

    /// Removes it as a person would, and waits until what it had is gone.
    pub async fn uninstall(&self) {
        self.run(&["uninstall", NAME, "--wait", "--timeout", ROLLOUT], "")
            .await;
    }

    /// Installs it again, with the same values, and waits until every Pod is ready.
    pub async fn install_again(&mut self) {
        self.helm("install").await;
        self.url = self.service_url().await;
        self.ready().await;
    }

    async fn run(&self, arguments: &[&str], values: &str) {
        let answer = self.world.cluster.helm(arguments, values).await;
        assert!(answer.succeeded, "helm {}: {}", arguments[0], answer.stderr);
    }
}
