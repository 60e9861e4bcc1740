//! A small AMQP client and an emulator in this process.

use std::{future::Future, time::Duration};

use fe2o3_amqp::{
    Connection, Receiver, Sender, Session,
    connection::ConnectionHandle,
    link::receiver::CreditMode,
    sasl_profile::SaslProfile,
    session::SessionHandle,
    types::{
        definitions::ErrorCondition,
        messaging::{Body, Data, Message, Outcome, Properties},
    },
};
use serde_amqp::{Value, primitives::Binary};
use servicebus_emulator::{
    Config, Emulator, QueueName, QueueSettings, QueueView, Running,
    config::{DEFAULT_KEY, DEFAULT_KEY_NAME},
};
use tokio::net::TcpStream;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work)
        .await
        .unwrap_or_else(|_| panic!("{what} took more than {LIMIT:?}"))
}

pub fn queue_name(name: &str) -> QueueName {
    name.parse().unwrap()
}

/// An emulator in memory with one queue, `orders`.
pub async fn emulator_with(settings: QueueSettings) -> Running {
    Emulator::start(Config::in_memory().with_queue(queue_name("orders"), settings))
        .await
        .unwrap()
}

pub async fn emulator() -> Running {
    emulator_with(QueueSettings::default()).await
}

pub fn orders(emulator: &Running) -> QueueView {
    emulator.queue(&queue_name("orders")).unwrap()
}

/// A connection and a session on it.
pub struct Client {
    pub connection: ConnectionHandle<()>,
    pub session: SessionHandle<()>,
}

impl Client {
    /// Comes in with the key, by SASL PLAIN, and so may do everything.
    pub async fn connect(address: std::net::SocketAddr) -> Self {
        let profile = SaslProfile::Plain {
            username: DEFAULT_KEY_NAME.to_owned(),
            password: DEFAULT_KEY.to_owned(),
        };
        Self::connect_as(address, profile).await
    }

    pub async fn connect_as(address: std::net::SocketAddr, profile: SaslProfile) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let opening = Connection::builder()
            .container_id("test")
            .hostname("localhost")
            .scheme("amqp")
            .sasl_profile(profile)
            .open_with_stream(stream);
        let mut connection = within("opening a connection", opening).await.unwrap();
        let session = within("beginning a session", Session::begin(&mut connection))
            .await
            .unwrap();
        Self { connection, session }
    }

    pub async fn sender(&mut self) -> Sender {
        within(
            "attaching a sender",
            Sender::attach(&mut self.session, "sender", "orders"),
        )
        .await
        .unwrap()
    }

    /// A receiver that gets as many messages as it asks for.
    pub async fn receiver(&mut self) -> Receiver {
        self.receiver_of("orders").await
    }

    pub async fn receiver_of(&mut self, address: &str) -> Receiver {
        let attaching = Receiver::builder()
            .name(format!("receiver of {address}"))
            .source(address)
            .credit_mode(CreditMode::Manual)
            .attach(&mut self.session);
        within("attaching a receiver", attaching).await.unwrap()
    }
}

pub fn message(id: &str) -> Message<Data> {
    Message::builder()
        .properties(Properties::builder().message_id(id.to_owned()).build())
        .data(Binary::from(id.as_bytes()))
        .build()
}

pub async fn send(sender: &mut Sender, id: &str) -> Outcome {
    within("sending", sender.send(message(id))).await.unwrap()
}

/// Asks for one message and takes it; answers with its body.
pub async fn receive(receiver: &mut Receiver) -> (String, fe2o3_amqp::Delivery<Body<Value>>) {
    receiver.set_credit(1).await.unwrap();
    let delivery = within("receiving", receiver.recv::<Body<Value>>()).await.unwrap();
    let body = match delivery.body() {
        Body::Data(data) => {
            String::from_utf8(data.iter().flat_map(|data| data.0.to_vec()).collect()).unwrap()
        }
        other => panic!("expected data, got {other:?}"),
    };
    (body, delivery)
}

/// The condition of a rejected outcome.
pub fn rejected(outcome: Outcome) -> String {
    match outcome {
        Outcome::Rejected(rejected) => condition(&rejected.error.unwrap().condition),
        other => panic!("expected a rejected outcome, got {other:?}"),
    }
}

pub fn condition(condition: &ErrorCondition) -> String {
    match Value::try_from_serializable(condition) {
        Ok(Value::Symbol(symbol)) => symbol.into_inner(),
        other => panic!("expected a symbol, got {other:?}"),
    }
}

/// Waits until something holds of the queue.
pub async fn until(emulator: &Running, what: &str, holds: impl Fn(&QueueView) -> bool) -> QueueView {
    let waiting = async {
        loop {
            let view = orders(emulator);
            if holds(&view) {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, waiting).await
}
