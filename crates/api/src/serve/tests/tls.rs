//! Over TLS.

use std::path::PathBuf;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tempfile::TempDir;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;

/// A certificate for localhost in files, and who trusts it.
struct Files {
    dir: TempDir,
    connector: TlsConnector,
}

fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

impl Files {
    fn make() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        file(&dir, "cert.pem", &cert.pem());
        file(&dir, "key.pem", &signing_key.serialize_pem());
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        Self { dir, connector: TlsConnector::from(Arc::new(config)) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tls(&self) -> Tls {
        Tls::load(&self.path("cert.pem"), &self.path("key.pem")).unwrap()
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        self.connector.connect(name, TcpStream::connect(address).await?).await
    }
}

async fn serve_tls(files: &Files, times: Times, router: Router) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(serve_within(times, listener, router, Some(files.tls()), std::future::pending()));
    address
}

/// Times that no test reaches.
fn long() -> Times {
    Times { stall_max: PATIENCE, handshake_max: PATIENCE }
}

#[tokio::test]
async fn requests_are_answered_over_tls() {
    let files = Files::make();
    let address = serve_tls(&files, long(), router()).await;
    let mut client = files.connect(address).await.unwrap();
    for _ in 0..2 {
        client.write_all(REQUEST).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = client.read(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer[..length]).ends_with("hello"));
    }
    // Nobody else is trusted.
    assert!(Files::make().connect(address).await.is_err());
}

#[tokio::test]
async fn plain_http_is_told_to_speak_tls() {
    let files = Files::make();
    let address = serve_tls(&files, long(), router()).await;
    let body = vec![b'x'; 10_000];
    let post = format!("POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    for request in [REQUEST.to_vec(), [post.as_bytes(), &body].concat()] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&request).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().expect("a clean end");
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
    }
    // What is neither is closed.
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&[22, 3, 1, 0, 5, b'n', b'o', b'n', b'e', b'!']).await.unwrap();
    let end = timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.expect("it is closed");
    drop(end);
    assert!(files.connect(address).await.is_ok(), "others are served");
}

#[tokio::test]
async fn a_slow_handshake_is_given_up() {
    let files = Files::make();
    let address = serve_tls(&files, short(), router()).await;
    for begun in [&[][..], &[22, 3, 1], b"G"] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(begun).await.unwrap();
        timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.expect("it is given up").ok();
    }
    assert!(files.connect(address).await.is_ok(), "others are served");
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_given_up_over_tls() {
    let files = Files::make();
    let (router, dropped) = endless();
    let address = serve_tls(&files, Times { handshake_max: PATIENCE, ..short() }, router).await;
    let mut client = files.connect(address).await.unwrap();
    client.write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    client.flush().await.unwrap();
    assert!(timeout(PATIENCE, dropped).await.expect("it is given up").is_err());
}

#[test]
fn files_that_will_not_do_are_named() {
    let (files, other) = (Files::make(), Files::make());
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let broken = file(&files.dir, "broken.pem", broken);
    let (empty, none) = (file(&files.dir, "empty.pem", ""), files.path("none.pem"));
    for (cert, key, named, why) in [
        (&none, &key, &none, "No such file"),
        (&cert, &none, &none, "No such file"),
        (&empty, &key, &empty, "no certificate in it"),
        (&key, &key, &key, "no certificate in it"),
        (&cert, &empty, &empty, "no private key in it"),
        (&cert, &cert, &cert, "no private key in it"),
        (&cert, &other.path("key.pem"), &other.path("key.pem"), "another certificate"),
        (&broken, &key, &broken, "not a certificate"),
    ] {
        let error = Tls::load(cert, key).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", named.display())) && error.contains(why), "{error}");
    }
}
