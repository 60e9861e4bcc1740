//! Writes the CustomResourceDefinition's YAML beside the crate's code; with `--check` only compares.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(crds::manifest::FILE);
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => write(&path),
        ["--check"] => check(&path),
        _ => Err("usage: crdgen [--check]".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<String, String> {
    crds::manifest::yaml().map_err(|error| format!("the definition cannot be written as YAML: {error}"))
}

fn write(path: &Path) -> Result<(), String> {
    fs::write(path, generate()?).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn check(path: &Path) -> Result<(), String> {
    let committed =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if committed == generate()? {
        Ok(())
    } else {
        Err(format!(
            "{} is out of date: run `cargo run -p crds --bin crdgen`",
            path.display()
        ))
    }
}
