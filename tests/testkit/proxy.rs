//! A TCP forwarder that can be told to fail, so that one test takes a neighbour away from its own
//! programs and from nobody else's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forward,
    /// Those there are cut; new ones are reset as soon as they are made. The port stays taken, so that
    /// no other program can get it meanwhile.
    Refuse,
}

/// A forwarder in front of one address; it ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of `host` and forwards to `target` (`host:port`).
    pub async fn start(host: &str, target: &str) -> Self {
        let listener = TcpListener::bind((host, 0))
            .await
            .unwrap_or_else(|error| panic!("cannot listen on {host}: {error}"));
        let address = listener.local_addr().expect("a bound socket has an address");
        let mode = Arc::new(watch::Sender::new(Mode::Forward));
        let target: Arc<str> = target.into();
        let accepting = tokio::spawn(accept(listener, target, mode.clone()));
        Self {
            address,
            mode,
            accepting,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An address with the forwarder's host and port.
    pub fn instead_of(&self, address: &Url) -> Url {
        let mut address = address.clone();
        address
            .set_ip_host(self.address.ip())
            .expect("an address has a host");
        address
            .set_port(Some(self.address.port()))
            .expect("an address has a port");
        address
    }

    /// The neighbour is down from now on.
    pub fn refuse(&self) {
        self.mode.send_replace(Mode::Refuse);
    }

    /// The neighbour is back.
    pub fn forward(&self) {
        self.mode.send_replace(Mode::Forward);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.refuse();
    }
}

async fn accept(listener: TcpListener, target: Arc<str>, mode: Arc<watch::Sender<Mode>>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(serve(client, target.clone(), mode.subscribe()));
            }
            Err(error) => {
                eprintln!("proxy: cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(mut client: TcpStream, target: Arc<str>, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Refuse {
        // Without lingering, closing sends a reset.
        if let Err(error) = client.set_zero_linger() {
            eprintln!("proxy: cannot reset a connection: {error}");
        }
        return;
    }
    let Ok(mut server) = TcpStream::connect(&*target).await else {
        return;
    };
    tokio::select! {
        // How a forwarded connection ends is its two ends' matter.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = mode.wait_for(|mode| *mode == Mode::Refuse) => {}
    }
}
