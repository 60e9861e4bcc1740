//! What a container engine and a kind node leave behind on a machine that they were run on carelessly.

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

use anyhow::{Context, Result};

/// What belongs to the bundled cluster and to buildah's store, which may come and go meanwhile.
const OTHERS: &[&str] = &[
    "KUBE-",
    "CNI-",
    "KC-",
    "cni0",
    "kube0",
    "kubepods",
    "veth",
    "/kc/",
    "/buildah",
    "/containers/storage/",
];

/// Settings of the kernel that count or tell something, and so change by themselves.
const COUNTERS: &[&str] = &[
    "/proc/sys/fs/dentry-state",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inode-nr",
    "/proc/sys/fs/inode-state",
    "/proc/sys/fs/aio-nr",
    "/proc/sys/fs/quota",
    "/proc/sys/fs/binfmt_misc",
    "/proc/sys/kernel/random",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/pty/nr",
    "/proc/sys/kernel/tainted",
];

/// Where engines put their things, unless told otherwise.
const PLACES: &[&str] = &[
    "/lib/modules",
    "/run/docker",
    "/run/docker.sock",
    "/run/docker.pid",
    "/var/lib/docker",
];

/// Where kind and kubectl put their configuration, unless told otherwise, below the user's home.
const KUBECONFIG: &str = ".kube/config";

/// The bundled cluster's network device.
const CLUSTER: &str = "/sys/class/net/kube0";

/// The state of the machine.
pub struct Traces {
    /// One a line.
    facts: BTreeSet<String>,
    /// Whether the bundled cluster is up, which sets the kernel for itself and, when it goes, back.
    cluster: bool,
}

impl Traces {
    /// # Errors
    /// When something cannot be read.
    pub fn read() -> Result<Self> {
        let mut facts = BTreeSet::new();
        for program in ["iptables-save", "ip6tables-save"] {
            let out = Command::new(program)
                .output()
                .with_context(|| program.to_owned())?;
            for line in String::from_utf8_lossy(&out.stdout).lines() {
                // a chain's counters are in brackets
                let rule = line.split(" [").next().unwrap_or_default();
                if !rule.starts_with('#') && rule != "COMMIT" && !rule.starts_with('*') {
                    facts.insert(format!("{program}: {rule}"));
                }
            }
        }
        for link in fs::read_dir("/sys/class/net")? {
            facts.insert(format!("network device {}", link?.file_name().display()));
        }
        for line in fs::read_to_string("/proc/self/mounts")?.lines() {
            facts.insert(format!("mount {line}"));
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup")? {
            for entry in fs::read_dir(hierarchy?.path())? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    facts.insert(format!("cgroup {}", entry.path().display()));
                }
            }
        }
        for folder in [
            "/proc/sys/fs",
            "/proc/sys/kernel",
            "/proc/sys/vm",
            "/proc/sys/net/bridge",
            "/proc/sys/net/ipv4/conf/all",
            "/proc/sys/net/ipv4/conf/default",
            "/proc/sys/net/ipv6/conf/all",
            "/proc/sys/net/ipv6/conf/default",
        ] {
            settings(Path::new(folder), &mut facts)?;
        }
        settings(Path::new("/proc/sys/net/ipv4/ip_forward"), &mut facts)?;
        let kubeconfig = env::home_dir().context("HOME is not set")?.join(KUBECONFIG);
        for place in PLACES.iter().map(Path::new).chain([kubeconfig.as_path()]) {
            if place.exists() {
                facts.insert(format!("file {}", place.display()));
            }
        }
        for process in fs::read_dir("/proc")? {
            // it may have ended since
            let name = fs::read_to_string(process?.path().join("comm")).unwrap_or_default();
            if ["dockerd", "docker-proxy", "docker-init"].contains(&name.trim()) {
                facts.insert(format!("process {}", name.trim()));
            }
        }
        facts.retain(|fact| !OTHERS.iter().any(|mark| fact.contains(mark)));
        Ok(Self {
            facts,
            cluster: Path::new(CLUSTER).exists(),
        })
    }

    /// What was not there before, and what was there and no longer is.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let same_cluster = self.cluster == later.cluster;
        if !same_cluster {
            eprintln!("   the bundled cluster came or went meanwhile: kernel settings are not compared");
        }
        let told = |fact: &&String| same_cluster || !fact.starts_with("/proc/sys/");
        let gone = self.facts.difference(&later.facts).filter(told);
        let new = later.facts.difference(&self.facts).filter(told);
        let gone = gone.map(|fact| format!("- {fact}"));
        let new = new.map(|fact| format!("+ {fact}"));
        gone.chain(new).collect()
    }
}

/// The values of all settings at or below the path that can be read.
fn settings(path: &Path, facts: &mut BTreeSet<String>) -> Result<()> {
    if COUNTERS.iter().any(|counter| path.starts_with(counter)) || !path.exists() {
        return Ok(());
    }
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            settings(&entry?.path(), facts)?;
        }
    } else if let Ok(value) = fs::read_to_string(path) {
        facts.insert(format!("{} = {}", path.display(), value.trim()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(cluster: bool, facts: &[&str]) -> Traces {
        let facts = facts.iter().map(|fact| (*fact).to_owned()).collect();
        Traces { facts, cluster }
    }

    #[test]
    fn what_comes_and_what_goes_is_a_difference() {
        let before = traces(true, &["file a", "file b", "/proc/sys/vm/x = 0"]);
        let after = traces(true, &["file b", "file c", "/proc/sys/vm/x = 1"]);
        assert_eq!(
            before.differences(&after),
            [
                "- /proc/sys/vm/x = 0",
                "- file a",
                "+ /proc/sys/vm/x = 1",
                "+ file c"
            ]
        );
    }

    #[test]
    fn kernel_settings_are_the_clusters_own_when_it_goes_meanwhile() {
        let before = traces(true, &["file a", "/proc/sys/vm/x = 1"]);
        let after = traces(false, &["file c", "/proc/sys/vm/x = 0"]);
        assert_eq!(before.differences(&after), ["- file a", "+ file c"]);
    }
}
