//! Who sends, and whom it is sent to: signatures, credentials, authorities, addresses.

use std::time::SystemTime;

use gatefeed_core::answer::Answer;
use gatefeed_engine::{
    Processor,
    dispatch::{Access, HttpOptions, HttpProcessor, Signer, parse_target},
};
use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

use super::{delivery, to_urls};

const SECRETS: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

async fn received(options: HttpOptions) -> Vec<Recorded> {
    let handler = Handler::always(Reply::ok()).await;
    let processor = to_urls(&[&handler.url()], options);
    for attempt in [1, 2] {
        let delivery = gatefeed_engine::Delivery { attempt, ..delivery() };
        assert_eq!(processor.process(delivery).await, Ok(Answer::done()));
    }
    handler.requests()
}

#[tokio::test]
async fn every_attempt_is_signed_anew_with_every_secret() {
    let signer = Some(Signer::parse(SECRETS).unwrap());
    let requests = received(HttpOptions { signer, ..HttpOptions::default() }).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for request in &requests {
        assert_eq!(request.headers.len(), 15, "{:?}", request.headers);
        assert_eq!(
            request.header("webhook-id"),
            request.header("idempotency-key"),
            "the same for each attempt"
        );
        let sent: u64 = request.header_text("webhook-timestamp").parse().unwrap();
        assert!(now.abs_diff(sent) < 300, "{sent}, not {now}");
        let signatures = request.header_text("webhook-signature");
        let signatures: Vec<&str> = signatures.split(' ').collect();
        assert!(signatures.len() == 2 && signatures[0] != signatures[1], "{signatures:?}");
        assert!(signatures.iter().all(|signature| signature.starts_with("v1,") && signature.len() == 47));
    }
    assert!(received(HttpOptions::default()).await[0].header("webhook-signature").is_none());
}

#[tokio::test]
async fn credentials_and_headers_go_with_every_delivery() {
    let access = Access::default().bearer("hunter2").unwrap().header("X-Team", "blue").unwrap();
    for request in received(HttpOptions { access, ..HttpOptions::default() }).await {
        assert_eq!(request.header_text("authorization"), "Bearer hunter2");
        assert_eq!(request.header_text("x-team"), "blue");
    }
}

/// A server of a self-signed certificate for localhost, which answers one request; its port, and that certificate.
async fn https_server() -> (u16, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![cert.der().clone()], key.into()).unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust it goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            _ = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
            _ = stream.shutdown().await;
        }
    });
    (port, cert.pem())
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_and_no_other() {
    let (port, pem) = https_server().await;
    let url = format!("https://localhost:{port}/");
    let with = |ca: &str| HttpOptions { ca: Some(ca.to_owned().into()), ..HttpOptions::default() };
    assert_eq!(to_urls(&[&url], with(&pem)).process(delivery()).await, Ok(Answer::done()));
    let (_, other) = https_server().await;
    let failure = to_urls(&[&url], with(&other)).process(delivery()).await.unwrap_err();
    assert!(!failure.counted && failure.message.contains("certificate"), "{failure:?}");
    for (bad, expected) in [("", "no certificate"), ("hello", "no certificate")] {
        for url in [url.as_str(), "http://localhost/"] {
            let error = HttpProcessor::new(vec![parse_target(url).unwrap()], with(bad)).err().unwrap();
            assert!(error.to_string().contains(expected), "{bad}: {error}");
        }
    }
}

#[tokio::test]
async fn with_deny_private_a_name_that_leads_inside_is_not_connected_to() {
    let handler = Handler::always(Reply::ok()).await;
    let inside = handler.url().replace("127.0.0.1", "localhost");
    let options = || HttpOptions { deny_private: true, ..HttpOptions::default() };
    let failure = to_urls(&[&inside], options()).process(delivery()).await.unwrap_err();
    assert!(!failure.counted && failure.message.contains("not of the public internet"), "{failure:?}");
    let health = to_urls(&[&inside], options()).health().await;
    assert!(!health[0].ok && health[0].detail.contains("not of the public internet"), "{health:?}");
    for literal in
        [handler.url(), "http://[::1]/".into(), "http://0x7f.1/".into(), "http://2130706433/".into()]
    {
        let refused = HttpProcessor::new(vec![parse_target(&literal).unwrap()], options()).err();
        assert!(refused.unwrap().to_string().contains("deny_private"), "{literal}");
    }
    assert_eq!(handler.connections(), 0);
    let allowed = to_urls(&[&inside], HttpOptions::default());
    assert_eq!(allowed.process(delivery()).await, Ok(Answer::done()));
}
