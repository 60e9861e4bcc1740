//! The exporter: one run is one attempt at the file of one report.
//!
//! [`run`] tells it as a story. The row goes to `Processing` and counts the attempt; a file that an earlier
//! attempt left is taken over after it was read back and its sum agrees; else one snapshot of the catalogue
//! is streamed through the CSV of schema `popularity.v1` into blocks, one conditional commit makes them a
//! blob, and only then the row becomes `Completed`.
//!
//! An attempt that dies anywhere leaves either nothing visible or a file that the next one takes over. It
//! never moves a row to `Failed`: that is the operator's to do, which knows whether another attempt comes.

mod adoption;
#[cfg(feature = "bench")]
pub mod bench;
mod cells;
mod config;
mod csv_rows;
mod error;
mod export;
mod file;
mod file_metadata;
mod packing;
mod patience;
mod progress;
mod termination;

pub use config::Config;
pub use error::{Error, exit_codes};
pub use export::{Outcome, run};
pub use termination::{MESSAGE_BYTES_MAX, Termination};
