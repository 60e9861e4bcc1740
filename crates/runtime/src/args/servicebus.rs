use clap::Args;
use secrecy::SecretString;

/// The Service Bus queue that carries the export requests.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Service Bus")]
pub struct ServiceBusArgs {
    /// How to log in.
    #[command(flatten)]
    pub login: ServiceBusLogin,

    /// The queue.
    #[arg(
        long,
        env = "SERVICEBUS_QUEUE",
        default_value = "report-requests",
        value_name = "QUEUE"
    )]
    pub servicebus_queue: String,
}

/// Exactly one of the two is given.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct ServiceBusLogin {
    /// Connection string with a shared access key. Secret; either this or the namespace is required.
    #[arg(
        long,
        env = "SERVICEBUS_CONNECTION_STRING",
        hide_env_values = true,
        value_name = "CONNECTION_STRING"
    )]
    pub servicebus_connection_string: Option<SecretString>,

    /// Fully qualified namespace, such as example.servicebus.windows.net, logged in to by workload
    /// identity over TLS; a port other than 5671 follows a colon.
    #[arg(long, env = "SERVICEBUS_NAMESPACE", value_name = "HOST")]
    pub servicebus_namespace: Option<String>,
}

impl ServiceBusLogin {
    /// Whether it is by workload identity.
    pub const fn by_identity(&self) -> bool {
        self.servicebus_connection_string.is_none()
    }
}
