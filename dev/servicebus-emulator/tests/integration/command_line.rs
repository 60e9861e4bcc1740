//! Flags, the configuration file, and what is said about mistakes in them.

use std::process::{Command, Output};

use rstest::rstest;

use crate::process::{BINARY, Process};

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .args(arguments)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap()
}

#[test]
fn the_help_names_every_setting_switch_and_path() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();

    let settings = serde_json::to_value(servicebus_emulator::QueueSettings::default()).unwrap();
    let faults = serde_json::to_value(servicebus_emulator::QueueFaults::default()).unwrap();
    let broker = serde_json::to_value(servicebus_emulator::BrokerFaults::default()).unwrap();
    let names = [settings, faults, broker]
        .iter()
        .flat_map(|names| names.as_object().unwrap().keys().cloned().collect::<Vec<_>>())
        .collect::<Vec<_>>();
    let missing: Vec<_> = names
        .iter()
        .map(String::as_str)
        .chain([
            "--listen",
            "--admin-listen",
            "--queue",
            "--data",
            "--key",
            "/counters",
            "/queues/NAME",
        ])
        .filter(|name| !help.contains(name))
        .collect();
    assert!(
        missing.is_empty(),
        "the help does not mention {missing:?}:\n{help}"
    );
}

#[test]
fn the_help_does_not_show_a_key_from_the_environment() {
    let output = Command::new(BINARY)
        .arg("--help")
        .env("SERVICEBUS_EMULATOR_KEY", "hunter2")
        .output()
        .unwrap();

    assert!(!String::from_utf8(output.stdout).unwrap().contains("hunter2"));
}

#[rstest]
#[case::queue(&["--queue", "q,lock=soon"], "is not a duration")]
#[case::address(&["--listen", "localhost"], "invalid socket address")]
#[case::file(&["--config", "/nowhere/emulator.toml"], "failed to read the configuration file")]
fn a_bad_flag_ends_it_with_the_reason(#[case] arguments: &[&str], #[case] says: &str) {
    let output = run(arguments);

    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains(says), "{text}");
}

#[test]
fn an_unknown_key_in_the_file_is_named_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("emulator.toml");
    std::fs::write(
        &file,
        "listen = [\"127.0.0.1:0\"]\n\n[queues.orders]\nlocks = \"3s\"\n",
    )
    .unwrap();

    let text = String::from_utf8(run(&["--config", file.to_str().unwrap()]).stderr).unwrap();

    assert!(
        text.contains("unknown field `locks`") && text.contains("line 4"),
        "{text}"
    );
}

#[tokio::test]
async fn queues_come_from_the_file_and_flags_win() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("emulator.toml");
    let text = "[queues.a]\nlock = \"3s\"\n\n[queues.b]\nmax-delivery-count = 2\nmax-message-size = 1048576\ndead-letter-expired = true\n";
    std::fs::write(&file, text).unwrap();

    let data = directory.path().join("data");
    let process = Process::start(
        &data,
        &[
            "--config",
            file.to_str().unwrap(),
            "--queue",
            "a,lock=5s",
            "--queue",
            "c",
        ],
    );

    let queues: serde_json::Value = reqwest::get(process.url("/queues"))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let settings = |index: usize, name: &str| queues[index]["settings"][name].clone();
    assert_eq!(settings(0, "lock"), "5s");
    assert_eq!(
        (settings(1, "max-delivery-count"), settings(1, "max-message-size")),
        (2.into(), 1_048_576.into())
    );
    assert_eq!(queues[2]["name"], "c");
}
