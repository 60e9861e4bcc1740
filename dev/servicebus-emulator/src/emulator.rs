//! Starting and stopping the whole.

use std::{net::SocketAddr, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin,
    broker::{Broker, Command, QueueView, Refusal},
    clock::Moment,
    config::{Config, Storage},
    connection::{self, Service},
    faults::{BrokerFaults, QueueFaults},
    journal::{Journal, Progress},
    keys::Keys,
    queue::{QueueName, QueueSettings},
    store::{self, Store},
};

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or not of this machine.
    #[error("failed to listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// No address at all was given.
    #[error("no address to listen on")]
    NoAddress,
    /// The data directory cannot be used.
    #[error("failed to open the store")]
    Store(#[from] store::Error),
    /// The store's thread cannot be started.
    #[error("failed to start the store's thread")]
    Thread(#[source] std::io::Error),
}

/// The emulator, to be started.
#[derive(Debug)]
pub struct Emulator;

/// An emulator that runs. Dropping it stops serving, too, but does not wait for the store.
#[derive(Debug)]
pub struct Running {
    amqp: Vec<SocketAddr>,
    admin: SocketAddr,
    key_name: String,
    key: SecretString,
    broker: Arc<Broker>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Emulator {
    /// Opens the store, binds the ports and begins to serve, on the current tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let Config {
            listen,
            admin_listen,
            storage,
            key_name,
            key,
            accept_jwt,
            jwt_issuer,
            idle_time_out,
            queues,
        } = config;
        let (restored, journal) = match storage {
            Storage::Memory => (Vec::new(), Journal::in_memory()),
            Storage::Directory(directory) => {
                let store = Store::open(&directory)?;
                (store.load()?, Journal::new(store).map_err(StartError::Thread)?)
            }
        };
        let broker = Arc::new(Broker::new(restored, journal));
        for (name, settings) in queues {
            broker.define_queue(&name, settings);
        }

        let mut listeners = Vec::new();
        for address in listen {
            listeners.push(bind(address).await?);
        }
        let amqp: Vec<_> = listeners.iter().map(|(_, address)| *address).collect();
        if amqp.is_empty() {
            return Err(StartError::NoAddress);
        }
        let (admin_listener, admin) = bind(admin_listen).await?;

        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let service = Arc::new(Service {
            broker: Arc::clone(&broker),
            keys: Keys {
                name: key_name.clone(),
                key: key.clone(),
                accept_jwt,
                jwt_issuer,
            },
            idle_time_out,
            shutdown: shutdown.clone(),
        });
        for (listener, _) in listeners {
            tasks.spawn(accept(listener, Arc::clone(&service), tasks.clone()));
        }
        tasks.spawn(admin::serve(
            admin_listener,
            Arc::clone(&broker),
            shutdown.clone(),
        ));
        tasks.spawn({
            let (broker, shutdown) = (Arc::clone(&broker), shutdown.clone());
            async move { shutdown.run_until_cancelled(broker.keep_time()).await }
        });
        Ok(Running {
            amqp,
            admin,
            key_name,
            key,
            broker,
            shutdown,
            tasks,
        })
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = |error| StartError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    Ok((listener, bound))
}

async fn accept(listener: TcpListener, service: Arc<Service>, tasks: TaskTracker) {
    let shutdown = service.shutdown.clone();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(connection::serve(Arc::clone(&service), stream));
            }
            Err(error) => {
                // Out of file descriptors, most likely; a short pause lets some become free.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to accept a connection"
                );
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

impl Running {
    /// Where clients connect; the first, when there are several.
    pub fn amqp_addr(&self) -> SocketAddr {
        self.amqp[0]
    }

    /// All the addresses where clients connect.
    pub fn amqp_addrs(&self) -> &[SocketAddr] {
        &self.amqp
    }

    /// Where the admin port is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// A connection string for the SDKs, with the key in it.
    pub fn connection_string(&self) -> SecretString {
        connection_string(self.amqp_addr(), &self.key_name, &self.key)
    }

    /// Makes a queue, or gives an existing one new settings. Answers whether it is new. It is on disk before any
    /// client is told of anything that happens in it.
    pub fn define_queue(&self, name: &QueueName, settings: QueueSettings) -> bool {
        self.broker.define_queue(name, settings)
    }

    /// Deletes a queue and ends its links. Answers whether there was one.
    pub fn delete_queue(&self, name: &QueueName) -> bool {
        self.broker.delete_queue(name)
    }

    /// A look at a queue: settings, counts, counters, switches.
    ///
    /// # Errors
    /// When there is no such queue.
    pub fn queue(&self, name: &QueueName) -> Result<QueueView, Refusal> {
        self.broker.view(name, Moment::now())
    }

    /// Sets a queue's fault switches, all of them: those left at their default are off.
    ///
    /// # Errors
    /// When there is no such queue.
    pub fn set_faults(&self, name: &QueueName, faults: QueueFaults) -> Result<(), Refusal> {
        self.broker.set_faults(name, faults)
    }

    /// Sets the fault switches of the broker as a whole.
    pub fn set_broker_faults(&self, faults: BrokerFaults) {
        self.broker.set_broker_faults(faults);
    }

    /// Ends a queue's locks as if their time had run out. Answers with how many there were.
    ///
    /// # Errors
    /// When there is no such queue.
    pub fn expire_locks(&self, name: &QueueName) -> Result<usize, Refusal> {
        self.broker.expire_locks(name, Moment::now())
    }

    /// Drops every connection without a word. Answers with how many there were.
    pub fn drop_connections(&self) -> usize {
        self.broker.tell_all(&Command::Drop)
    }

    /// Closes every connection with an AMQP error. Answers with how many there were.
    pub fn close_connections(&self, condition: &str, description: &str) -> usize {
        self.broker.tell_all(&Command::Close {
            condition: condition.to_owned(),
            description: description.to_owned(),
        })
    }

    /// Detaches all links to a queue with an AMQP error.
    pub fn detach_links(&self, queue: &QueueName, condition: &str, description: &str) {
        self.broker.tell_all(&Command::DetachLinks {
            queue: queue.clone(),
            condition: condition.to_owned(),
            description: description.to_owned(),
        });
    }

    /// Returns when the store has refused a write, after which nothing more is acknowledged. Without a store,
    /// never.
    pub async fn store_failed(&self) {
        let mut progress = self.broker.journal().progress();
        if progress
            .wait_for(|progress| *progress == Progress::Failed)
            .await
            .is_err()
        {
            // The writer ended in order, or there is none.
            std::future::pending::<()>().await;
        }
    }

    /// Drops all connections, frees the ports, writes what is left to write and lets go of the store.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let broker = Arc::clone(&self.broker);
        if let Err(error) = tokio::task::spawn_blocking(move || broker.journal().close()).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to close the store"
            );
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A connection string as the SDKs take it for an emulator.
pub fn connection_string(address: SocketAddr, key_name: &str, key: &SecretString) -> SecretString {
    format!(
        "Endpoint=sb://{address};SharedAccessKeyName={key_name};SharedAccessKey={};UseDevelopmentEmulator=true;",
        key.expose_secret()
    )
    .into()
}
