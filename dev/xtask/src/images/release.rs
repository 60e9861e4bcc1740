//! The images as they are released: from the last commit, by buildah and the Containerfile, each with the list of
//! its components beside it. `docs/adr/0006-images.md` says why.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};
use clap::ValueEnum;
use xshell::cmd;

use super::{
    PROGRAMS,
    archive::{self, Contents},
    buildah::Buildah,
    promises::{self, Expected},
    sbom,
};
use crate::{project::Project, steps::step};

/// How to build them.
#[derive(clap::Args)]
pub struct Options {
    /// Build the images as they are released, from the last commit, by buildah and the Containerfile
    #[arg(long)]
    pub release: bool,
    /// The machine that the images are for
    #[arg(long, requires = "release", default_value = "amd64")]
    platform: Machine,
    /// Compile all of it a second time, from nothing, and fail when the digests differ
    #[arg(long, requires = "release")]
    check: bool,
    /// A published image of Rust on Debian 12 to build in, instead of one made here
    #[arg(long, requires = "release")]
    builder: Option<String>,
    /// Where the sources are published, for the images' labels
    #[arg(long, requires = "release", default_value = "")]
    source: String,
}

/// A machine, as Go and the OCI call it.
#[derive(Clone, Copy, ValueEnum)]
enum Machine {
    #[value(alias = "linux/amd64")]
    Amd64,
    #[value(alias = "linux/arm64")]
    Arm64,
}

impl Machine {
    /// The one that this runs on.
    fn own() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("no images are built on {other}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// The commit that is built.
struct Commit {
    revision: String,
    /// Seconds since 1970.
    epoch: String,
    /// The same in RFC 3339.
    created: String,
}

impl Commit {
    fn last(project: &Project) -> Result<Self> {
        let sh = &project.sh;
        let show = |format: &str| {
            cmd!(
                sh,
                "git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format={format}"
            )
            .env("TZ", "UTC")
            .quiet()
            .read()
        };
        Ok(Self {
            revision: show("%H")?,
            epoch: show("%ct")?,
            created: show("%cd")?,
        })
    }
}

struct Release<'p> {
    project: &'p Project,
    options: &'p Options,
    buildah: Buildah<'p>,
    builder: String,
    commit: Commit,
    /// The files of the commit, and no others.
    context: PathBuf,
}

/// Builds, checks what the images promise, and prints what came out.
///
/// # Errors
/// When an image does not build, breaks a promise, or comes out otherwise the second time.
pub fn run(project: &Project, options: &Options) -> Result<()> {
    let buildah = Buildah::new(project)?;
    let release = Release {
        project,
        options,
        builder: match &options.builder {
            Some(builder) => builder.clone(),
            None => buildah.builder()?,
        },
        buildah,
        commit: Commit::last(project)?,
        context: project.target.join("images/context"),
    };
    release.check_out()?;
    let built = release.all();
    release.buildah.close()?;
    built
}

impl Release<'_> {
    fn all(&self) -> Result<()> {
        let folder = self.project.target.join("images/release");
        fs::create_dir_all(&folder)?;

        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(["image", "MB", "components", "digest"]);
        let mut broken = Vec::new();
        let cache = self.buildah.cache("tmp")?;
        let lists = self.lists(&cache, "")?;
        let mut digests = Vec::new();
        for program in PROGRAMS {
            let base = folder.join(format!("{program}-{}", self.options.platform.name()));
            let (archive, list) = (base.with_extension("tar"), base.with_extension("cdx.json"));
            let image = self.image(program, &archive, &cache, "")?;
            let sbom = sbom::complete(
                &lists.join(format!("{program}.cdx.json")),
                &image,
                &self.commit.created,
            )?;
            fs::write(&list, serde_json::to_vec_pretty(&sbom)?)?;
            let expected = self.expected(program);
            let wrong = promises::broken(&image, &expected)
                .into_iter()
                .chain(promises::missing_components(&sbom, program));
            broken.extend(wrong.map(|line| format!("{program}: {line}")));
            #[expect(clippy::cast_precision_loss, reason = "only shown, with one digit")]
            let size = image.size as f64 / 1e6;
            table.add_row([
                self.project.shown(&archive).to_string(),
                format!("{size:.1}"),
                sbom["components"].as_array().map_or(0, Vec::len).to_string(),
                image.digest.clone(),
            ]);
            digests.push(image.digest);
        }
        println!("\n{table}\n\nThe list of components is beside each, in .cdx.json.");
        if !broken.is_empty() {
            bail!("the images break promises:\n{}", broken.join("\n"));
        }
        if self.options.check {
            self.again(&digests)?;
            println!("The second build, from nothing, has the same digests.");
        }
        Ok(())
    }

    /// Puts the commit's files where the build looks: what others change here meanwhile is not in the images,
    /// and the label tells the truth.
    fn check_out(&self) -> Result<()> {
        let (sh, context) = (&self.project.sh, &self.context);
        let archive = context.with_extension("tar");
        if context.exists() {
            fs::remove_dir_all(context)?;
        }
        fs::create_dir_all(context)?;
        cmd!(sh, "git archive --output {archive} HEAD").quiet().run()?;
        cmd!(sh, "tar --extract --file {archive} --directory {context}")
            .quiet()
            .run()?;
        Ok(())
    }

    fn expected<'a>(&'a self, program: &'a str) -> Expected<'a> {
        Expected {
            program,
            architecture: self.options.platform.name(),
            version: env!("CARGO_PKG_VERSION"),
            revision: &self.commit.revision,
            created: &self.commit.created,
        }
    }

    /// Builds one target of the Containerfile. With another `anew`, all of it is compiled again.
    fn build(&self, target: &str, cache: &Path, anew: &str, output: &[&str]) -> Result<()> {
        let machine = self.options.platform.name();
        let mut build = self
            .buildah
            .build(cache)?
            .args(["--platform", &format!("linux/{machine}"), "--target", target])
            .args(["--timestamp", &self.commit.epoch])
            .args(output);
        for (name, value) in [
            ("BUILDER", self.builder.as_str()),
            ("BUILDPLATFORM", &format!("linux/{}", Machine::own()?.name())),
            ("ANEW", anew),
            ("CREATED", &self.commit.created),
            ("REVISION", &self.commit.revision),
            ("SOURCE", &self.options.source),
            ("SOURCE_DATE_EPOCH", &self.commit.epoch),
            ("VERSION", env!("CARGO_PKG_VERSION")),
        ] {
            build = build.arg("--build-arg").arg(format!("{name}={value}"));
        }
        let context = &self.context;
        step(&format!("build {target} for {machine}"), || {
            Ok(build
                .args(["--file", &format!("{}/Containerfile", context.display())])
                .arg(context)
                .run()?)
        })
    }

    /// The folder with each program's list of crates.
    fn lists(&self, cache: &Path, anew: &str) -> Result<PathBuf> {
        let folder = self.project.target.join("images/lists");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        self.build("sbom", cache, anew, &["--output", &folder.to_string_lossy()])?;
        Ok(folder)
    }

    fn image(&self, program: &str, archive: &Path, cache: &Path, anew: &str) -> Result<Contents> {
        let version = env!("CARGO_PKG_VERSION");
        let name = format!("popularity-reports/{program}:{version}");
        let stored = format!("localhost/{name}-{}", self.options.platform.name());
        self.build(program, cache, anew, &["--tag", &stored])?;
        if archive.exists() {
            fs::remove_file(archive)?;
        }
        let to = format!("oci-archive:{}:{name}", archive.display());
        self.buildah
            .command()
            .args(["push", "--quiet", "--format", "oci", &stored, &to])
            .run()?;
        archive::read(archive)
    }

    fn again(&self, digests: &[String]) -> Result<()> {
        let anew = SystemTime::now()
            .duration_since(UNIX_EPOCH)?
            .as_secs()
            .to_string();
        let cache = self.buildah.cache(&format!("again-{anew}"))?;
        let archive = self.project.target.join("images/again.tar");
        let mut differ = Vec::new();
        for (program, first) in PROGRAMS.iter().zip(digests) {
            let second = self.image(program, &archive, &cache, &anew)?.digest;
            if second != *first {
                differ.push(format!("{program}: {first}, then {second}"));
            }
        }
        fs::remove_dir_all(&cache)?;
        if differ.is_empty() {
            return Ok(());
        }
        bail!("the second build came out otherwise:\n{}", differ.join("\n"))
    }
}
