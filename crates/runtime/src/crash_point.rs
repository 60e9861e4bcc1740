//! Named points at which a fault test ends the process as `kill -9` would.

/// Aborts the process when the test named this point, as in
/// `FAILPOINTS="relay.after-accept=return"`; see the [`fail`] crate for counts and probabilities
/// (`1*return`). Nothing is unwound or flushed: what the process leaves behind is what a crash at
/// this very place leaves.
#[cfg(feature = "failpoints")]
pub fn crash_point(name: &str) {
    static CONFIGURED: std::sync::Once = std::sync::Once::new();
    // The scenario is what reads FAILPOINTS; dropping it would clear the points again.
    CONFIGURED.call_once(|| std::mem::forget(fail::FailScenario::setup()));
    if fail::eval(name, |_| ()).is_some() {
        tracing::error!(crash_point = name, "aborting at a crash point, as configured");
        std::process::abort();
    }
}

/// Compiled to nothing: the feature `failpoints` is off.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn crash_point(_name: &str) {}
