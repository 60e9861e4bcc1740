//! The images that go onto kind's node: built by Docker and pulled, or, where nothing can be pulled, written from what is
//! built and installed on this machine.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};
use xshell::cmd;

use crate::{
    images::{self, DEV, PROGRAMS},
    platform::{azurite, cluster::Cluster},
    project::Project,
    steps::step,
    tools,
};

/// What the product needs, of this repository.
const TOOLS: &[&str] = &["servicebus-emulator", "sample-data"];

/// The images of what the product needs, as Docker builds them.
const NEIGHBOURS: &str = "dev/kind/neighbours/Containerfile";

/// Where the images come from.
#[derive(clap::Args)]
pub struct Source {
    /// Write the images from what is built and installed on this machine, instead of having Docker build and pull
    /// them
    #[arg(long)]
    from_host: bool,
    /// Take the programs as `cargo xtask test` builds them: with crash points, which nothing switches on, and, right
    /// after the tests, without compiling anything again
    #[arg(long, requires = "from_host")]
    as_tested: bool,
    /// The image of kind's node; without it, the one that this kind is made for
    #[arg(long)]
    pub node_image: Option<String>,
    /// PostgreSQL's image
    #[arg(long, default_value = "postgres:15", conflicts_with = "from_host")]
    postgres_image: String,
    /// Azurite's image; without it, one is built from the packages that dev/azurite locks
    #[arg(long, conflicts_with = "from_host")]
    azurite_image: Option<String>,
    /// Microsoft's Service Bus emulator, by whose licence you then have to abide; without it, this project's own
    #[arg(long, requires = "sql_server_image")]
    servicebus_image: Option<String>,
    /// The SQL Server that Microsoft's emulator keeps its messages in
    #[arg(long, requires = "servicebus_image")]
    sql_server_image: Option<String>,
}

/// The images, by name, and where they are until they are on the node.
pub struct Images {
    postgres: String,
    azurite: String,
    servicebus: String,
    sql_server: Option<String>,
    sample_data: String,
    /// Whether the Service Bus emulator is Microsoft's.
    pub microsoft: bool,
    /// In Docker.
    docker: Vec<String>,
    /// In docker-archives.
    archives: Vec<PathBuf>,
}

impl Images {
    /// Builds, writes or pulls them.
    ///
    /// # Errors
    /// When one cannot be had.
    pub fn build(project: &Project, options: &Source) -> Result<Self> {
        let mut images = Self {
            postgres: options.postgres_image.clone(),
            azurite: options
                .azurite_image
                .clone()
                .unwrap_or_else(|| images::name(azurite::NAME, DEV)),
            servicebus: options
                .servicebus_image
                .clone()
                .unwrap_or_else(|| images::name(TOOLS[0], DEV)),
            sql_server: options.sql_server_image.clone(),
            sample_data: images::name(TOOLS[1], DEV),
            microsoft: options.servicebus_image.is_some(),
            docker: Vec::new(),
            archives: Vec::new(),
        };
        if options.from_host {
            build_programs(project, options.as_tested)?;
            images.write(project)?;
        } else {
            images.build_by_docker(project, options)?;
        }
        images.pull(project, options)?;
        Ok(images)
    }

    fn write(&mut self, project: &Project) -> Result<()> {
        let programs = [PROGRAMS, TOOLS].concat();
        let written = images::write_some(project, "dev", DEV, &programs)?;
        self.archives = written.into_iter().map(|image| image.archive).collect();
        self.postgres = images::name("postgres", DEV);
        let folder = project.target.join("images");
        let packages = azurite::install(project)?;
        step("write the images of PostgreSQL and Azurite", || {
            Ok(cmd!(project.sh, "dev/kind/neighbours/images {packages} {DEV} {folder}").run()?)
        })?;
        for name in ["postgres", azurite::NAME] {
            self.archives.push(folder.join(format!("{name}-{DEV}.tar")));
        }
        Ok(())
    }

    fn build_by_docker(&mut self, project: &Project, options: &Source) -> Result<()> {
        let mut builds: Vec<_> = PROGRAMS.iter().map(|name| ("Containerfile", *name)).collect();
        builds.extend(TOOLS.iter().map(|name| (NEIGHBOURS, *name)));
        if options.azurite_image.is_none() {
            builds.push((NEIGHBOURS, azurite::NAME));
        }
        for (file, target) in builds {
            let image = images::name(target, DEV);
            step(&format!("build the image {image}"), || {
                Ok(cmd!(
                    project.sh,
                    "docker build --file {file} --target {target} --tag {image} ."
                )
                // without it, engines before 23 do not take the mounts in these files
                .env("DOCKER_BUILDKIT", "1")
                .run()?)
            })?;
            self.docker.push(image);
        }
        Ok(())
    }

    /// Those that somebody else publishes.
    fn pull(&mut self, project: &Project, options: &Source) -> Result<()> {
        let mut published: Vec<&String> = [
            &options.azurite_image,
            &options.servicebus_image,
            &options.sql_server_image,
        ]
        .into_iter()
        .flatten()
        .collect();
        if !options.from_host {
            published.push(&options.postgres_image);
        }
        for image in published {
            let there = cmd!(project.sh, "docker image inspect {image}")
                .quiet()
                .ignore_stdout()
                .ignore_stderr();
            if there.run().is_err() {
                step(&format!("pull the image {image}"), || {
                    Ok(cmd!(project.sh, "docker pull {image}").run()?)
                })?;
            }
            self.docker.push(image.clone());
        }
        Ok(())
    }

    /// Brings them onto the node.
    ///
    /// # Errors
    /// When the node does not take one.
    pub fn load(&self, cluster: &Cluster) -> Result<()> {
        for archive in &self.archives {
            cluster.load(archive)?;
        }
        if self.docker.is_empty() {
            return Ok(());
        }
        cluster.load_from_docker(&self.docker)
    }

    /// Their names, as values of the neighbours' chart.
    pub fn names(&self) -> Value {
        json!({
            "postgres": self.postgres,
            "azurite": self.azurite,
            "servicebus": self.servicebus,
            "sqlServer": self.sql_server.clone().unwrap_or_default(),
            "sampleData": self.sample_data,
        })
    }
}

/// Builds the programs of this machine.
///
/// # Errors
/// When one does not build.
pub fn build_programs(project: &Project, as_tested: bool) -> Result<()> {
    tools::need_packages(project)?;
    if as_tested {
        return step("build everything, as for the tests", || {
            crate::test::build_all(project)
        });
    }
    images::build_programs(project, "dev")
}
