//! A DnsActor over TCP after truncation, and over TLS and HTTPS with a private certificate
//! authority. In real time, because these wait for the kernel.

use super::name_server::{NameServer, Scene, config, v4};
use crate::config::DnsConfig;
use crate::reload;
use actix::prelude::*;
use hickory_resolver::proto::op::Message;
use postern_core::names::NameFailure;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

#[test]
fn retries_over_tcp_after_truncation() {
    System::new().block_on(async {
        let server = NameServer::start().await;
        server.truncates.set(true);
        serve_tcp(&server).await;
        let mut scene = Scene::new(&[&server]);
        for name in ["both.example", "both.corp.example"] {
            let outcome = scene.resolve(name).await;
            assert_eq!(outcome.0, Ok(vec![v4(1).into()]));
        }
    });
}

#[test]
fn rejects_an_answer_to_another_query_over_tcp() {
    System::new().block_on(async {
        let server = NameServer::start().await;
        serve_tcp(&server).await;
        let config = DnsConfig {
            servers: vec![format!("tcp://{}", server.url()).parse().expect("a server")],
            ..config()
        };
        let mut scene = Scene::configured(&config, |_| {});
        server.misquotes.set(true);
        let outcome = scene.resolve("both.example").await;
        assert_eq!(outcome.0, Err(NameFailure::ServerFailure));
        server.misquotes.set(false);
        server.is_old.set(true);
        let outcome = scene.resolve("v4.example").await;
        assert_eq!(outcome.0, Ok(vec![v4(1).into()]), "asked without EDNS");
    });
}

/// At the port that it has over UDP.
async fn serve_tcp(server: &Rc<NameServer>) {
    let listener = TcpListener::bind(server.address).await;
    let listener = listener.expect("the port is free for TCP too");
    let behind = Rc::clone(server);
    actix_rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            actix_rt::spawn(serve_frames(Rc::clone(&behind), stream));
        }
    });
}

#[test]
fn asks_over_tls_if_the_certificate_is_right() {
    System::new().block_on(async {
        let mut world = World::new(&[]).await;
        world.serve(serve_frames);
        world.check("tls://127.0.0.1:{port}#dns.lab.example").await;
    });
}

#[test]
fn asks_over_https_if_the_certificate_is_right() {
    System::new().block_on(async {
        let mut world = World::new(&[b"h2"]).await;
        world.serve(serve_http);
        world
            .check("https://127.0.0.1:{port}/dns-query#dns.lab.example")
            .await;
    });
}

#[test]
fn names_a_file_without_certificates_with_the_remedy() {
    let empty = NamedTempFile::new().expect("a file");
    for path in [empty.path(), "there/is/no/such/file".as_ref()] {
        let config = DnsConfig {
            ca_file: Some(path.to_owned()),
            ..config()
        };
        let error = reload::trust(config.ca_file.as_deref()).expect_err("nothing to trust");
        assert!(error.starts_with("dns.ca_file: "), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.ends_with("certificates in PEM"), "{error}");
    }
}

/// A name server with a certificate of a private authority.
struct World {
    server: Rc<NameServer>,
    listener: Option<TcpListener>,
    port: u16,
    acceptor: TlsAcceptor,
    authority: NamedTempFile,
}

impl World {
    async fn new(protocols: &[&[u8]]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("room");
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = || KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), authority.pem()).expect("written");

        let key = key();
        let params = CertificateParams::new(["dns.lab.example".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &authority).expect("signed");
        let secret = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .expect("they belong together");
        tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self {
            server: NameServer::start().await,
            port: listener.local_addr().expect("bound").port(),
            listener: Some(listener),
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            authority: file,
        }
    }

    fn serve<F>(&mut self, talk: fn(Rc<NameServer>, TlsStream<TcpStream>) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = self.listener.take().expect("served once");
        let (acceptor, server) = (self.acceptor.clone(), Rc::clone(&self.server));
        actix_rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    actix_rt::spawn(talk(Rc::clone(&server), stream));
                }
            }
        });
    }

    /// Asks it twice: under its name, then under another.
    async fn check(&self, url: &str) {
        let url = url.replace("{port}", &self.port.to_string());
        let mut scene = self.scene(&url);
        for name in ["v4.example", "v4.corp.example"] {
            let outcome = scene.resolve(name).await;
            assert_eq!(outcome.0, Ok(vec![v4(1).into()]));
        }
        let mut scene = self.scene(&url.replace("dns.lab", "other.lab"));
        let outcome = scene.resolve("v4.example").await;
        assert_eq!(outcome.0, Err(NameFailure::Network), "an impostor");
    }

    fn scene(&self, url: &str) -> Scene {
        let config = DnsConfig {
            servers: vec![url.parse().expect("a server")],
            ca_file: Some(self.authority.path().to_owned()),
            ..config()
        };
        Scene::configured(&config, |spec| {
            spec.lookups.deadline = Duration::from_millis(1_500);
        })
    }
}

/// Prefixes answers with two bytes of length, as over TCP and TLS.
async fn serve_frames(server: Rc<NameServer>, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        stream.read_exact(&mut question).await.expect("whole");
        let answer = answer(&server, &question);
        let length = u16::try_from(answer.len()).expect("short");
        stream.write_u16(length).await.expect("sent");
        stream.write_all(&answer).await.expect("sent");
        stream.flush().await.expect("sent");
    }
}

/// Answers the bodies of POST requests (RFC 8484, section 4.1).
async fn serve_http(server: Rc<NameServer>, stream: TlsStream<TcpStream>) {
    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let server = Rc::clone(&server);
        actix_rt::spawn(async move {
            assert_eq!(request.uri().path(), "/dns-query");
            let mut body = request.into_body();
            let mut question = Vec::new();
            while let Some(Ok(part)) = body.data().await {
                question.extend_from_slice(&part);
            }
            let answer = answer(&server, &question);
            let head = http::Response::builder()
                .header("content-type", "application/dns-message")
                .header("content-length", answer.len())
                .body(())
                .expect("a response");
            let mut sending = respond.send_response(head, false).expect("sent");
            sending.send_data(answer.into(), true).expect("sent");
        });
    }
}

fn answer(server: &NameServer, question: &[u8]) -> Vec<u8> {
    let question = Message::from_vec(question).expect("a question");
    server.answer(&question).to_vec().expect("an answer")
}
