//! What goes over the socket below AMQP's links, and what broken clients get.

use std::time::Duration;

use servicebus_emulator::{Config, Emulator, QueueSettings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::client::{Client, emulator, queue_name, send, within};

const SASL_HEADER: &[u8] = b"AMQP\x03\x01\x00\x00";
const AMQP_HEADER: &[u8] = b"AMQP\x00\x01\x00\x00";

/// All that comes until the emulator closes.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    // A reset is an end as well.
    let _ = within("the end of the stream", stream.read_to_end(&mut received)).await;
    received
}

#[tokio::test]
async fn a_client_without_sasl_is_shown_the_header_it_should_have_begun_with() {
    let emulator = emulator().await;
    let mut stream = TcpStream::connect(emulator.amqp_addr()).await.unwrap();

    stream.write_all(AMQP_HEADER).await.unwrap();

    assert_eq!(until_closed(&mut stream).await, SASL_HEADER);
}

#[tokio::test]
async fn noise_ends_its_own_connection_and_nobody_elses() {
    let emulator = emulator().await;
    let mut client = Client::connect(emulator.amqp_addr()).await;
    let mut sender = client.sender().await;

    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[SASL_HEADER, &[0xff; 64]].concat(),
    ] {
        let mut stream = TcpStream::connect(emulator.amqp_addr()).await.unwrap();
        stream.write_all(noise).await.unwrap();
        until_closed(&mut stream).await;
    }

    send(&mut sender, "a").await;
}

#[tokio::test]
async fn a_client_that_goes_silent_is_let_go() {
    let config = Config {
        idle_time_out: Duration::from_millis(200),
        ..Config::in_memory()
    };
    let emulator = Emulator::start(config).await.unwrap();
    let mut stream = TcpStream::connect(emulator.amqp_addr()).await.unwrap();

    // SASL ANONYMOUS and an open with the container-id "c", and then nothing.
    let sasl_init = b"\x00\x00\x00\x1a\x02\x01\x00\x00\x00\x53\x41\xc0\x0d\x01\xa3\x09ANONYMOUS\x00";
    let sasl_init = &sasl_init[..sasl_init.len() - 1];
    let size = u32::try_from(sasl_init.len()).unwrap().to_be_bytes();
    stream.write_all(SASL_HEADER).await.unwrap();
    stream
        .write_all(&[&size, &sasl_init[4..]].concat())
        .await
        .unwrap();
    stream.write_all(AMQP_HEADER).await.unwrap();
    let open = b"\x00\x00\x00\x11\x02\x00\x00\x00\x00\x53\x10\xc0\x04\x01\xa1\x01c";
    stream.write_all(open).await.unwrap();

    let received = until_closed(&mut stream).await;

    let text = String::from_utf8_lossy(&received);
    assert!(text.contains("amqp:connection:forced"), "{text}");
}

#[tokio::test]
async fn a_client_that_wants_signs_of_life_gets_them() {
    let emulator = emulator().await;
    let stream = TcpStream::connect(emulator.amqp_addr()).await.unwrap();
    let opening = fe2o3_amqp::Connection::builder()
        .container_id("c")
        .idle_time_out(600u32)
        .sasl_profile(fe2o3_amqp::sasl_profile::SaslProfile::Anonymous)
        .open_with_stream(stream);
    let mut connection = within("opening", opening).await.unwrap();

    let ended = tokio::time::timeout(Duration::from_secs(2), connection.on_close()).await;

    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn several_addresses_serve_the_same_queues() {
    let any_port = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        listen: vec![any_port, any_port],
        ..Config::in_memory()
    };
    let emulator = Emulator::start(config.with_queue(queue_name("orders"), QueueSettings::default()))
        .await
        .unwrap();

    for address in emulator.amqp_addrs() {
        let mut client = Client::connect(*address).await;
        send(&mut client.sender().await, "a").await;
    }

    assert_eq!(emulator.queue(&queue_name("orders")).unwrap().counters.sent, 2);
}

#[tokio::test]
async fn stopping_frees_the_ports() {
    let emulator = emulator().await;
    let _client = Client::connect(emulator.amqp_addr()).await;
    let (amqp, admin) = (emulator.amqp_addr(), emulator.admin_addr());

    within("stopping", emulator.stop()).await;

    for address in [amqp, admin] {
        assert!(
            TcpStream::connect(address).await.is_err(),
            "{address} still answers"
        );
    }
}
