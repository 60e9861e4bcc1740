//! What every released image promises: `docs/adr/0006-images.md`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::archive::Contents;

/// The largest an image may be, in bytes as a node downloads it.
const LIMIT: u64 = 30_000_000;

/// The user and group that Kubernetes is told too.
const USER: &str = "65532:65532";

/// Where the only files that can be executed are, beside the program: the loader and its libraries.
const LIBRARIES: &[&str] = &["/lib", "/lib64"];

const LABELS: &[&str] = &[
    "created",
    "description",
    "licenses",
    "revision",
    "title",
    "vendor",
    "version",
];

/// What is known of an image beforehand.
pub struct Expected<'a> {
    pub program: &'a str,
    /// As Go and the OCI call it.
    pub architecture: &'a str,
    pub version: &'a str,
    pub revision: &'a str,
    /// RFC 3339.
    pub created: &'a str,
}

/// One line for each promise that the image breaks.
pub fn broken(image: &Contents, expected: &Expected) -> Vec<String> {
    let mut broken = Vec::new();
    let mut promise = |kept: bool, what: &dyn Fn() -> String| {
        if !kept {
            broken.push(what());
        }
    };
    promise(image.size <= LIMIT, &|| {
        format!("{} bytes are more than {LIMIT}", image.size)
    });
    let architecture = &image.config["architecture"];
    promise(architecture == expected.architecture, &|| {
        format!(
            "the architecture is {architecture} and not {}",
            expected.architecture
        )
    });
    let config = &image.config["config"];
    promise(config["User"] == USER, &|| {
        format!("it runs as {} and not {USER}", config["User"])
    });
    let program = PathBuf::from(format!("/{}", expected.program));
    let entrypoint = &config["Entrypoint"];
    promise(
        *entrypoint == serde_json::json!([program]) && config["Cmd"].is_null(),
        &|| format!("it starts {entrypoint} and not {}", program.display()),
    );

    let label = |name: &str| {
        config["Labels"][format!("org.opencontainers.image.{name}")]
            .as_str()
            .unwrap_or_default()
    };
    for name in LABELS {
        promise(!label(name).is_empty(), &|| {
            format!("the label {name} is missing")
        });
    }
    for (name, value) in [
        ("version", expected.version),
        ("revision", expected.revision),
        ("created", expected.created),
    ] {
        promise(label(name) == value, &|| {
            format!("the label {name} is {:?} and not {value:?}", label(name))
        });
    }
    let created = &image.config["created"];
    promise(created == expected.created, &|| {
        format!("it was made at {created} and not {}", expected.created)
    });

    for (path, file) in &image.files {
        let at = path.display();
        promise(file.mode & 0o6000 == 0, &|| {
            format!("{at} changes the user or group")
        });
        promise(
            !file.kind.is_block_special() && !file.kind.is_character_special(),
            &|| format!("{at} is a device"),
        );
        let may_run = *path == program || LIBRARIES.iter().any(|folder| path.starts_with(folder));
        promise(!file.kind.is_file() || file.mode & 0o111 == 0 || may_run, &|| {
            format!("{at} can be executed: the image has more than its program")
        });
        promise(file.mode & 0o002 == 0 || !file.kind.is_file(), &|| {
            format!("everybody may write {at}")
        });
    }
    let data = |path: &str| {
        image
            .files
            .get(Path::new(path))
            .map_or(&[][..], |file| &file.data)
    };
    promise(data(&program.to_string_lossy()).starts_with(b"\x7fELF"), &|| {
        format!("{} is no program", program.display())
    });
    promise(
        String::from_utf8_lossy(data("/etc/ssl/certs/ca-certificates.crt"))
            .contains("-----BEGIN CERTIFICATE-----"),
        &|| "the certificates of the public authorities are missing".to_owned(),
    );
    promise(
        data("/usr/share/zoneinfo/Europe/Copenhagen").starts_with(b"TZif"),
        &|| "the time zones are missing".to_owned(),
    );
    promise(
        String::from_utf8_lossy(data("/etc/passwd")).contains(":65532:65532:"),
        &|| "its user has no name".to_owned(),
    );
    broken
}

/// One line for each component that the list of components lacks, or must not have.
pub fn missing_components(sbom: &Value, program: &str) -> Vec<String> {
    let names: Vec<&str> = sbom["components"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|component| component["name"].as_str())
        .collect();
    let (own, foreign): (&[&str], &[&str]) = match program {
        "api" => (&["axum", "jsonwebtoken", "kube-client"], &["fe2o3-amqp"]),
        "operator" => (&["kube-runtime", "fe2o3-amqp"], &[]),
        // cargo-auditable takes the features of shared crates from the whole workspace and so names axum here as
        // well, which is not compiled in; `cargo xtask layers` sees to that
        _ => (&["csv", "flate2"], &["kube-client", "fe2o3-amqp"]),
    };
    let common = [
        "tokio",
        "rustls",
        "aws-lc-rs",
        "sqlx-postgres",
        "ca-certificates",
        "tzdata",
    ];
    let mut wrong: Vec<_> = common
        .iter()
        .chain(own)
        .filter(|name| !names.contains(name))
        .map(|name| format!("the list of components lacks {name}"))
        .collect();
    // both spellings: Debian names the C library for another machine after that machine
    if !names.iter().any(|name| name.starts_with("libc6")) {
        wrong.push("the list of components lacks libc6".to_owned());
    }
    wrong.extend(
        foreign
            .iter()
            .filter(|name| names.contains(name))
            .map(|name| format!("the program carries {name}")),
    );
    wrong
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::images::archive::Entry;

    const EXPECTED: Expected = Expected {
        program: "api",
        architecture: "amd64",
        version: "1.2.3",
        revision: "abc",
        created: "2026-01-02T03:04:05Z",
    };

    fn file(mode: u32, data: &[u8]) -> Entry {
        Entry {
            kind: tar::EntryType::Regular,
            mode,
            data: data.to_vec(),
        }
    }

    fn image() -> Contents {
        let label = |name: &str, value: &str| (format!("org.opencontainers.image.{name}"), json!(value));
        let labels: serde_json::Map<_, _> = [
            label("created", EXPECTED.created),
            label("description", "d"),
            label("licenses", "Apache-2.0"),
            label("revision", EXPECTED.revision),
            label("title", "t"),
            label("vendor", "v"),
            label("version", EXPECTED.version),
        ]
        .into_iter()
        .collect();
        Contents {
            digest: "sha256:0".to_owned(),
            size: 1,
            config: json!({
                "architecture": "amd64",
                "created": EXPECTED.created,
                "config": {"User": USER, "Entrypoint": ["/api"], "Labels": labels},
            }),
            files: BTreeMap::from([
                ("/api".into(), file(0o755, b"\x7fELF")),
                ("/lib/libc.so.6".into(), file(0o755, b"\x7fELF")),
                (
                    "/etc/passwd".into(),
                    file(0o644, b"nonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin"),
                ),
                (
                    "/etc/ssl/certs/ca-certificates.crt".into(),
                    file(0o644, b"-----BEGIN CERTIFICATE-----"),
                ),
                (
                    "/usr/share/zoneinfo/Europe/Copenhagen".into(),
                    file(0o644, b"TZif2"),
                ),
            ]),
        }
    }

    #[test]
    fn an_image_that_keeps_all_promises_breaks_none() {
        assert_eq!(broken(&image(), &EXPECTED), Vec::<String>::new());
    }

    #[test]
    fn each_broken_promise_is_named() {
        type Change = fn(&mut Contents);
        let cases: &[(&str, Change)] = &[
            ("more than", |image| image.size = LIMIT + 1),
            ("the architecture", |image| {
                image.config["architecture"] = json!("arm64")
            }),
            ("it runs as", |image| image.config["config"]["User"] = json!("0")),
            ("it starts", |image| {
                image.config["config"]["Entrypoint"] = json!(["/bin/sh"])
            }),
            ("it starts", |image| {
                image.config["config"]["Cmd"] = json!(["--help"])
            }),
            ("the label title is missing", |image| {
                image.config["config"]["Labels"]["org.opencontainers.image.title"] = json!("");
            }),
            ("the label revision", |image| {
                image.config["config"]["Labels"]["org.opencontainers.image.revision"] = json!("def");
            }),
            ("it was made at", |image| {
                image.config["created"] = json!("1970-01-01T00:00:00Z")
            }),
            ("/bin/sh can be executed", |image| {
                image.files.insert("/bin/sh".into(), file(0o755, b"\x7fELF"));
            }),
            ("changes the user", |image| {
                image.files.insert("/lib/su".into(), file(0o4755, b"\x7fELF"));
            }),
            ("everybody may write /etc/group", |image| {
                image.files.insert("/etc/group".into(), file(0o666, b""));
            }),
            ("is a device", |image| {
                let mut device = file(0o600, b"");
                device.kind = tar::EntryType::Char;
                image.files.insert("/dev/mem".into(), device);
            }),
            ("/api is no program", |image| {
                drop(image.files.remove(Path::new("/api")))
            }),
            ("certificates", |image| {
                image
                    .files
                    .insert("/etc/ssl/certs/ca-certificates.crt".into(), file(0o644, b""));
            }),
            ("time zones", |image| {
                image
                    .files
                    .remove(Path::new("/usr/share/zoneinfo/Europe/Copenhagen"));
            }),
            ("no name", |image| {
                drop(image.files.remove(Path::new("/etc/passwd")))
            }),
        ];
        for (named, change) in cases {
            let mut image = image();
            change(&mut image);
            let broken = broken(&image, &EXPECTED);
            assert!(
                broken.len() == 1 && broken.iter().all(|line| line.contains(named)),
                "{named}: {broken:?}"
            );
        }
    }

    #[test]
    fn a_component_that_is_missing_or_foreign_is_named() {
        let sbom = json!({"components": [{"name": "tokio"}, {"name": "fe2o3-amqp"}]});
        let wrong = missing_components(&sbom, "api");
        assert!(
            wrong.contains(&"the list of components lacks axum".to_owned()),
            "{wrong:?}"
        );
        assert!(
            wrong.contains(&"the list of components lacks libc6".to_owned()),
            "{wrong:?}"
        );
        assert!(
            wrong.contains(&"the program carries fe2o3-amqp".to_owned()),
            "{wrong:?}"
        );
        assert!(!wrong.iter().any(|line| line.contains("tokio")), "{wrong:?}");
    }
}
