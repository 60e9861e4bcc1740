//! An error and its causes in one line, for logs.

pub use kubernetes::error_chain;
