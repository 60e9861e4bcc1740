//! One report, from the POST to the CSV, told as it happens.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xshell::{Cmd, cmd};

use crate::{hash::sha256_hex, project::Project, steps::seconds};

/// How long the sample's report may take; on two cores it takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// How many rows of the file are shown.
const SHOWN: usize = 10;

/// Which of its columns are shown: all of them are wider than most screens.
const COLUMNS: &[&str] = &[
    "rank",
    "title",
    "year_of_release",
    "artists",
    "rating_count",
    "average_rating",
    "popularity_score",
];

/// Where the product is that makes the report.
pub struct Journey<'a> {
    pub project: &'a Project,
    /// The API's, without a `/` at the end.
    pub url: String,
    pub token: String,
    /// Of the reports.
    pub namespace: &'a str,
    pub kubectl: &'a dyn Fn() -> Result<Cmd<'a>>,
    /// Where the file goes.
    pub file: PathBuf,
    /// What to type to see why a report has failed.
    pub logs: &'a str,
}

impl Journey<'_> {
    /// Makes one report and tells it as it happens: the POST, the polling, the download. The answer is the report's
    /// id and how long it took from the POST to the finished file.
    ///
    /// # Errors
    /// When the report does not end as it should, or the file is not what the status says.
    pub fn tell(&self) -> Result<(String, Duration)> {
        chapter("An application asks for a report, and is answered at once");
        let asked = Instant::now();
        let id = self.post()?;

        chapter("It polls; the people who run the cluster see the report as a resource of Kubernetes");
        let report = self.follow(&id)?;
        let took = asked.elapsed();

        chapter("It fetches the file by the link in the answer");
        self.fetch(&report)?;
        Ok((id, took))
    }

    /// Calls the API by curl. The token goes by a variable and a file descriptor, not by the command line.
    fn curl(&self, args: &[&str]) -> Result<String> {
        let token = format!("header = \"Authorization: Bearer {}\"", self.token);
        Ok(cmd!(
            self.project.sh,
            "curl --silent --show-error --max-time 30 --config - {args...}"
        )
        .stdin(token)
        .quiet()
        .read()?)
    }

    fn post(&self) -> Result<String> {
        let url = format!("{}/reports/popularity", self.url);
        println!("$ curl -i -X POST {url} -H \"Authorization: Bearer $API_TOKEN\"");
        let answer = self.curl(&["--include", "--request", "POST", &url])?;
        println!("{}", answer.replace('\r', ""));
        let body = answer.rsplit_once("\r\n\r\n").map_or("", |(_, body)| body);
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        if status != "202" {
            bail!(
                "the API answered {status} instead of 202; {} tells more",
                self.logs
            );
        }
        let body: Value = serde_json::from_str(body).context("the body of the 202 is no JSON")?;
        Ok(text(&body, "/reportId")?.to_owned())
    }

    /// Polls until the report has ended, and shows the resource each time that it has changed.
    fn follow(&self, id: &str) -> Result<Value> {
        let url = format!("{}/reports/{id}", self.url);
        let began = Instant::now();
        println!("$ curl -s {url} -H \"Authorization: Bearer $API_TOKEN\"        # polled");
        println!(
            "$ kubectl -n {} get popularityreports report-{id}        # at each change",
            self.namespace
        );
        let (mut status, mut row) = (String::new(), String::new());
        loop {
            let report: Value =
                serde_json::from_str(&self.curl(&[&url])?).context("the status is no JSON")?;
            let now = text(&report, "/status")?;
            if now != status {
                println!("\n{:>8}  GET: {now}", seconds(began.elapsed()));
                status = now.to_owned();
            }
            let shown = self.resource(id)?;
            // the last column is the age, which changes by itself
            let facts = shown
                .rsplit_once(' ')
                .map_or("", |(facts, _)| facts.trim_end())
                .to_owned();
            if facts != row {
                println!(
                    "{:>8}  {}",
                    seconds(began.elapsed()),
                    shown.replace('\n', "\n          ")
                );
                row = facts;
            }
            // the resource is written second: what kubectl shows is waited for as well
            if matches!(now, "Completed" | "Failed") && row.contains(now) {
                println!(
                    "\n$ curl -s {url} …\n{}",
                    serde_json::to_string_pretty(&redacted(&report))?
                );
                if now == "Failed" {
                    bail!(
                        "the report has failed; {} and `kubectl -n {} describe popularityreport report-{id}` tell more",
                        self.logs,
                        self.namespace
                    );
                }
                return Ok(report);
            }
            if began.elapsed() > LIMIT {
                bail!(
                    "the report has not ended within {}; {} tells more",
                    seconds(LIMIT),
                    self.logs
                );
            }
            thread::sleep(Duration::from_millis(250));
        }
    }

    /// The resource as kubectl lists it; empty as long as it is not there.
    fn resource(&self, id: &str) -> Result<String> {
        let name = format!("report-{id}");
        let get = (self.kubectl)()?.args([
            "-n",
            self.namespace,
            "get",
            "popularityreports",
            &name,
            "--ignore-not-found",
        ]);
        Ok(get.quiet().read()?)
    }

    /// Downloads the file and checks it against the status.
    fn fetch(&self, report: &Value) -> Result<()> {
        let link = text(report, "/downloadUrl")?;
        let file = &self.file;
        println!(
            "$ curl -s -o {} \"$downloadUrl\"        # no token: the link itself is the permission",
            self.project.shown(file)
        );
        // the link is a secret for as long as it is good: it goes by standard input
        cmd!(
            self.project.sh,
            "curl --silent --show-error --fail --max-time 120 --compressed --config - --output {file}"
        )
        .stdin(format!("url = \"{link}\""))
        .quiet()
        .run()?;
        let bytes = std::fs::read(file)?;
        let mut csv = csv::Reader::from_reader(bytes.as_slice());
        let header = csv.headers()?.clone();
        let shown: Vec<usize> = (0..header.len())
            .filter(|n| header.get(*n).is_some_and(|name| COLUMNS.contains(&name)))
            .collect();
        let chosen = |record: &csv::StringRecord| shown.iter().filter_map(|n| record.get(*n)).collect();
        let mut first: Vec<csv::StringRecord> = vec![chosen(&header)];
        let mut rows: u64 = 0;
        for record in csv.records() {
            let record = record.context("the file is no CSV")?;
            if first.len() <= SHOWN {
                first.push(chosen(&record));
            }
            rows += 1;
        }
        println!("\n{}\n", table(&first));
        println!(
            "… {rows} rows of {} columns ({} of them shown), {} bytes\n",
            header.len(),
            shown.len(),
            bytes.len()
        );
        let sha256 = sha256_hex(&bytes);
        let told_rows = report.pointer("/result/file/rows").and_then(Value::as_u64);
        let told_sha256 = text(report, "/result/file/sha256")?;
        println!(
            "rows    the status says {}, the file has {rows}",
            told_rows.unwrap_or_default()
        );
        println!("sha256  the status says {told_sha256}\n        the file has    {sha256}");
        if told_rows != Some(rows) || told_sha256 != sha256 {
            bail!("the file is not the one that the status describes");
        }
        Ok(())
    }
}

/// A heading of the story.
pub fn chapter(title: &str) {
    println!("\n━━ {title} ━━\n");
}

fn text<'v>(value: &'v Value, pointer: &str) -> Result<&'v str> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("no {pointer} in the answer: {}", redacted(value)))
}

/// The answer without the link's signature, which is as good as a key.
fn redacted(report: &Value) -> Value {
    let mut report = report.clone();
    if let Some(Value::String(link)) = report.get_mut("downloadUrl")
        && let Some((start, _)) = link.split_once("sig=")
    {
        *link = format!("{start}sig=…");
    }
    report
}

/// Records as aligned columns; what is long is cut.
fn table(records: &[csv::StringRecord]) -> String {
    const WIDEST: usize = 28;
    let cell = |text: &str| {
        let line: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if line.chars().count() <= WIDEST {
            line
        } else {
            line.chars().take(WIDEST - 1).chain(['…']).collect()
        }
    };
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    for record in records {
        table.add_row(record.iter().map(cell));
    }
    table.trim_fmt()
}
