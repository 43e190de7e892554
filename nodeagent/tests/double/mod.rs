//! A stand-in for a proxy server: the call that agents make, with TLS and HTTP/2, and whatever a test wants it to
//! say. It does not decide anything; what a real server does is written in the tests.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tunnel::Packet;
use tunnel::wire::{Deframer, decode, encode};

/// How long a test waits for anything. Generous: it only matters where something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// What a double is like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Character {
    /// Identities in turn, as behind a balancer.
    pub(crate) servers: Vec<String>,
    /// What it says the number of servers is; the number of identities if none.
    pub(crate) count: Option<String>,
    /// The only token it takes.
    pub(crate) token: Option<String>,
    /// Whether agents have to show a certificate.
    pub ask_certificate: bool,
}

/// A listening double.
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    streams: mpsc::UnboundedReceiver<Stream>,
    refused: mpsc::UnboundedReceiver<HeaderMap>,
    task: JoinHandle<()>,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A stream that an agent opened.
pub(crate) struct Stream {
    pub(crate) server: String,
    pub(crate) headers: HeaderMap,
    sender: SendStream<Bytes>,
    receiver: RecvStream,
    deframer: Deframer,
    early: VecDeque<Packet>,
    next_random: i64,
}

pub(crate) fn certificate(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

fn tls(character: &Character) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = if character.ask_certificate {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(certificate("ca.pem")).expect("authority"))
            .expect("authority");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let chain = vec![CertificateDer::from_pem_file(certificate("server.pem")).expect("certificate")];
    let key = PrivateKeyDer::from_pem_file(certificate("server.key")).expect("key");
    let mut config = builder.with_single_cert(chain, key).expect("certificate and key");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

impl Double {
    pub(crate) async fn start(character: Character) -> Double {
        Double::start_at("127.0.0.1:0".parse().expect("address"), character).await
    }

    pub(crate) async fn start_at(address: SocketAddr, character: Character) -> Double {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(tls(&character));
        let (streams_in, streams) = mpsc::unbounded_channel();
        let (refused_in, refused) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut serial = 0;
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let _nodelay = socket.set_nodelay(true);
                let acceptor = acceptor.clone();
                let server = character.servers.get(serial % character.servers.len().max(1)).cloned();
                serial += 1;
                let (character, streams, refused) =
                    (character.clone(), streams_in.clone(), refused_in.clone());
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(socket).await else { return };
                    let mut builder = h2::server::Builder::new();
                    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(tls).await else { return };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let (head, receiver) = request.into_parts();
                        assert_eq!(head.uri.path(), "/AgentService/Connect");
                        let shown = head.headers.get("authorization").map(|value| value.as_bytes().to_vec());
                        let wanted =
                            character.token.as_ref().map(|token| format!("Bearer {token}").into_bytes());
                        if wanted.is_some() && shown != wanted {
                            let response = Response::builder()
                                .header("content-type", "application/grpc")
                                .header("grpc-status", "2")
                                .header("grpc-message", "Failed to validate authentication token, err:no%21");
                            let _sent = respond.send_response(response.body(()).expect("response"), true);
                            let _told = refused.send(head.headers);
                            continue;
                        }
                        let count =
                            character.count.clone().unwrap_or_else(|| character.servers.len().to_string());
                        let mut response = Response::builder().header("content-type", "application/grpc");
                        if let Some(server) = &server {
                            response = response.header("serverid", server).header("servercount", count);
                        }
                        let response = response.body(()).expect("response");
                        let Ok(sender) = respond.send_response(response, false) else { continue };
                        let stream = Stream {
                            server: server.clone().unwrap_or_default(),
                            headers: head.headers,
                            sender,
                            receiver,
                            deframer: Deframer::default(),
                            early: VecDeque::new(),
                            next_random: 1,
                        };
                        let _taken = streams.send(stream);
                    }
                });
            }
        });
        Double { address, streams, refused, task }
    }

    /// The next stream that an agent opens.
    pub(crate) async fn stream(&mut self) -> Stream {
        timeout(PATIENCE, self.streams.recv()).await.expect("an agent in time").expect("an agent")
    }

    /// The headers of the next request that was refused.
    pub(crate) async fn refused(&mut self) -> HeaderMap {
        timeout(PATIENCE, self.refused.recv()).await.expect("an agent in time").expect("an agent")
    }
}

impl Stream {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub(crate) async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        encode(&packet, &mut bytes);
        self.send_bytes(bytes.freeze()).await;
    }

    pub(crate) async fn send_bytes(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            self.sender.reserve_capacity(bytes.len());
            while self.sender.capacity() == 0 {
                let capacity = timeout(PATIENCE, poll_fn(|context| self.sender.poll_capacity(context))).await;
                capacity.expect("room in time").expect("an open stream").expect("an open stream");
            }
            let length = self.sender.capacity().min(bytes.len());
            self.sender.send_data(bytes.split_to(length), false).expect("an open stream");
        }
    }

    /// The next packet, none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        if let Some(packet) = self.early.pop_front() {
            return Some(packet);
        }
        loop {
            if let Some(message) = self.deframer.take().expect("well formed") {
                return Some(decode(message).expect("well formed"));
            }
            let chunk = timeout(PATIENCE, self.receiver.data()).await.expect("a packet in time")?.ok()?;
            let _released = self.receiver.flow_control().release_capacity(chunk.len());
            self.deframer.push(chunk);
        }
    }

    /// The next packet for which `which` has a result; the others wait.
    pub(crate) async fn wait<T>(&mut self, mut which: impl FnMut(&Packet) -> Option<T>) -> T {
        if let Some(at) = self.early.iter().position(|packet| which(packet).is_some()) {
            let packet = self.early.remove(at).expect("a packet");
            return which(&packet).expect("the same result");
        }
        let early = std::mem::take(&mut self.early);
        let mut passed = VecDeque::new();
        let result = loop {
            let packet = self.next().await.expect("an open stream");
            match which(&packet) {
                Some(result) => break result,
                None => passed.push_back(packet),
            }
        };
        self.early = early;
        self.early.append(&mut passed);
        result
    }

    pub(crate) async fn begin_dial(&mut self, address: &str) -> i64 {
        let random = self.next_random;
        self.next_random += 1;
        self.send(Packet::DialRequest { protocol: "tcp".into(), address: address.into(), random }).await;
        random
    }

    pub(crate) async fn dial(&mut self, address: &str) -> Result<i64, String> {
        let dialled = self.begin_dial(address).await;
        self.wait(|packet| match packet {
            Packet::DialResponse { error, connect_id, random } if *random == dialled => {
                Some(if error.is_empty() { Ok(*connect_id) } else { Err(error.clone()) })
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn data(&mut self, connect_id: i64, data: impl Into<Bytes>) {
        self.send(Packet::Data { connect_id, error: String::new(), data: data.into() }).await;
    }

    /// Waits for `count` bytes of a connection.
    pub(crate) async fn read(&mut self, of: i64, count: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < count {
            let more = self
                .wait(|packet| match packet {
                    Packet::Data { connect_id, data, .. } if *connect_id == of => Some(data.clone()),
                    _ => None,
                })
                .await;
            read.extend_from_slice(&more);
        }
        assert_eq!(read.len(), count);
        read
    }

    /// Waits for the end of a connection; what it says.
    pub(crate) async fn closed(&mut self, of: i64) -> String {
        self.wait(|packet| match packet {
            Packet::CloseResponse { error, connect_id } if *connect_id == of => Some(error.clone()),
            _ => None,
        })
        .await
    }

    /// Ends the stream with a status, in order.
    pub(crate) fn end(mut self) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "14".parse().expect("value"));
        trailers.insert("grpc-message", "going away".parse().expect("value"));
        let _sent = self.sender.send_trailers(trailers);
    }

    /// Breaks the stream off.
    pub(crate) fn reset(mut self) {
        self.sender.send_reset(h2::Reason::INTERNAL_ERROR);
    }
}

/// An endpoint, and its address as a server asks for it.
pub(crate) async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// An endpoint that sends back what it gets.
pub(crate) async fn echo() -> String {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                let _ended = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    address
}
