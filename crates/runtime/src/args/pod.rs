use clap::Args;

/// The Pod that the program runs in, as the downward API tells it; Events on it say what keeps the program
/// from starting.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Pod")]
pub struct PodArgs {
    /// Its name.
    #[arg(long, env = Self::NAME, value_name = "NAME")]
    pub pod_name: Option<String>,

    /// Its namespace.
    #[arg(long, env = Self::NAMESPACE, value_name = "NAMESPACE")]
    pub pod_namespace: Option<String>,

    /// Its uid, by which `kubectl describe pod` finds the Events.
    #[arg(long, env = Self::UID, value_name = "UID")]
    pub pod_uid: Option<String>,
}

impl PodArgs {
    const NAME: &str = "POD_NAME";
    const NAMESPACE: &str = "POD_NAMESPACE";
    const UID: &str = "POD_UID";

    /// For a program whose command line cannot be read, so that it can still tell of that.
    pub fn from_environment() -> Self {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            pod_name: read(Self::NAME),
            pod_namespace: read(Self::NAMESPACE),
            pod_uid: read(Self::UID),
        }
    }
}
