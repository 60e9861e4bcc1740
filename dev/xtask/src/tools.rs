//! Programs that the tasks need beside cargo: what is missing is installed from the usual package registries,
//! with a line that says so, or named with the command that installs it.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::{project::Project, steps::step};

/// A program or file, and the Debian package that brings it.
const PACKAGES: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ethtool", "ethtool"),
    ("socat", "socat"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("setpriv", "util-linux"),
    ("strip", "binutils"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
    ("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

/// Where Debian puts PostgreSQL's programs.
pub const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";

/// The oldest Go that the cluster's and the checks' modules build with.
const GO: &str = "1.25";

/// Whether the program is there to be started.
pub fn on_path(project: &Project, program: &str) -> bool {
    find(project, program).is_some()
}

fn find(project: &Project, program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Path::new(program).exists().then(|| program.into());
    }
    let path = project.sh.var_os("PATH")?;
    // not every account has the system's own folders on its path
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Installs the Debian packages that are missing.
///
/// # Errors
/// When they cannot be installed, with the command that would do it.
pub fn need_packages(project: &Project) -> Result<()> {
    let missing: Vec<_> = PACKAGES
        .iter()
        .filter(|(program, _)| !on_path(project, program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(project, &missing)
}

/// Checks that Python can make environments, for the tests that drive the emulator by the Python SDK; Debian
/// has that part in a package of its own.
///
/// # Errors
/// As [`need_packages`].
pub fn need_python(project: &Project) -> Result<()> {
    let check = cmd!(project.sh, "python3 -c 'import ensurepip, venv'")
        .quiet()
        .ignore_stdout()
        .ignore_stderr();
    if check.run().is_ok() {
        return Ok(());
    }
    install(project, &["python3", "python3-venv"])
}

/// Installs one Debian package, which only some task needs, when its program is missing.
///
/// # Errors
/// As [`need_packages`].
pub fn need_program(project: &Project, program: &str, package: &str) -> Result<()> {
    if on_path(project, program) {
        return Ok(());
    }
    install(project, &[package])
}

/// Docker's engine and what makes a root file system of Debian packages, for `cargo xtask kind-test`.
///
/// # Errors
/// As [`need_packages`].
pub fn need_container_engine(project: &Project) -> Result<()> {
    let wanted = [
        ("/usr/sbin/dockerd", "docker.io"),
        ("/usr/bin/docker", "docker.io"),
        ("mmdebstrap", "mmdebstrap"),
    ];
    let mut missing: Vec<_> = wanted
        .iter()
        .filter(|(program, _)| !on_path(project, program))
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    // Debian's packages start what they install, unless this says no; the engine's rules would cut off the
    // bundled cluster's pods
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let own_policy = rustix::process::geteuid().is_root() && !policy.exists();
    if own_policy {
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
    }
    let installed = install(project, &missing);
    if own_policy {
        fs::remove_file(policy)?;
    }
    installed
}

fn install(project: &Project, missing: &[&str]) -> Result<()> {
    let list = missing.join(" ");
    if !rustix::process::geteuid().is_root() || !on_path(project, "apt-get") {
        bail!(
            "missing programs; as root: apt-get update && apt-get install -y --no-install-recommends {list}"
        );
    }
    step(&format!("install from Debian: {list}"), || {
        if missing.contains(&"postgresql-15") {
            // the package would else create a database cluster of its own, and start it
            let folder = Path::new("/etc/postgresql-common/createcluster.d");
            fs::create_dir_all(folder)?;
            fs::write(
                folder.join("popularity-reports.conf"),
                "create_main_cluster = false\n",
            )?;
        }
        let sh = &project.sh;
        cmd!(sh, "apt-get update -qq").run()?;
        Ok(
            cmd!(sh, "apt-get install -y -qq --no-install-recommends {missing...}")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .ignore_stdout()
                .run()?,
        )
    })
}

/// Checks that Go is there. Debian 12's own is too old to fetch a newer one by itself.
///
/// # Errors
/// When it is missing or too old.
pub fn need_go(project: &Project) -> Result<()> {
    let advice = || format!("Go {GO} or newer is needed, on the PATH");
    let version = cmd!(project.sh, "go env GOVERSION")
        .quiet()
        .read()
        .with_context(advice)?;
    let minor = |text: &str| text.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    if minor(&version) < minor(GO) {
        bail!("{}; here is {version}", advice());
    }
    Ok(())
}

/// The Helm that tests and tasks use.
const HELM: &str = "v3.22.0";

/// Helm, of one version wherever this runs: what it renders is compared byte for byte.
///
/// # Errors
/// When it cannot be built.
pub fn need_helm(project: &Project) -> Result<PathBuf> {
    go_install(project, "helm.sh/helm/v3/cmd/helm", "helm", HELM)
}

/// A program of a Go module at this version, once for all checkouts.
fn go_install(project: &Project, package: &str, name: &str, version: &str) -> Result<PathBuf> {
    let folder = project.cache.join(format!("{name}-{version}"));
    let program = folder.join(name);
    if program.is_file() {
        return Ok(program);
    }
    need_go(project)?;
    step(&format!("install {name} {version} (once to a machine)"), || {
        Ok(cmd!(project.sh, "go install {package}@{version}")
            .env("GOBIN", folder)
            .run()?)
    })?;
    Ok(program)
}

/// The kind that is installed where there is none.
const KIND: &str = "v0.33.0";

/// The actionlint that checks the workflows of GitHub.
const ACTIONLINT: &str = "v1.7.12";

/// actionlint, of one version wherever this runs.
///
/// # Errors
/// When it cannot be built.
pub fn need_actionlint(project: &Project) -> Result<PathBuf> {
    let package = "github.com/rhysd/actionlint/cmd/actionlint";
    go_install(project, package, "actionlint", ACTIONLINT)
}

/// kind, found or installed.
///
/// # Errors
/// When it cannot be built.
pub fn need_kind(project: &Project) -> Result<PathBuf> {
    if on_path(project, "kind") {
        return Ok("kind".into());
    }
    go_install(project, "sigs.k8s.io/kind", "kind", KIND)
}

/// The checker of Prometheus' rules, out of Debian's package: to install that would start a Prometheus.
///
/// # Errors
/// When the package cannot be fetched.
pub fn need_promtool(project: &Project) -> Result<PathBuf> {
    if let Some(promtool) = find(project, "promtool") {
        return Ok(promtool);
    }
    let folder = project.cache.join("prometheus");
    let promtool = folder.join("usr/bin/promtool");
    if promtool.is_file() {
        return Ok(promtool);
    }
    let advice = "promtool is needed, on the PATH; as root: apt-get install -y prometheus";
    if !on_path(project, "apt-get") {
        bail!("{advice}");
    }
    step("fetch promtool, of Debian's package prometheus", || {
        let sh = &project.sh;
        fs::create_dir_all(&folder)?;
        let _folder = sh.push_dir(&folder);
        if rustix::process::geteuid().is_root() {
            cmd!(sh, "apt-get update -qq").run()?;
        }
        // the account of apt's own has no business in this folder
        cmd!(sh, "apt-get download -qq -o APT::Sandbox::User=root prometheus").run()?;
        let package = sh
            .read_dir(&folder)?
            .into_iter()
            .find(|file| file.extension().is_some_and(|end| end == "deb"))
            .context(advice)?;
        Ok(cmd!(sh, "dpkg-deb --extract {package} {folder}").run()?)
    })?;
    Ok(promtool)
}

/// Installs a cargo subcommand that is missing.
///
/// # Errors
/// When it cannot be built.
pub fn need_cargo_tool(project: &Project, crate_name: &str, version: &str) -> Result<()> {
    if on_path(project, crate_name) {
        return Ok(());
    }
    step(
        &format!("install {crate_name} (minutes; once to a machine)"),
        || {
            // a build folder of its own would be thrown away after an interrupted build
            let target = project.cache.join("cargo-install");
            Ok(cmd!(
                project.sh,
                "cargo install --locked --target-dir {target} --version {version} {crate_name}"
            )
            .run()?)
        },
    )
}
