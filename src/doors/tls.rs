//! What makes https of the listener: a certificate, its key, and OpenSSL, which the transport has brought already.

use std::path::Path;
use std::pin::Pin;

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslAcceptor, SslMethod};
use openssl::x509::X509;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// Which of the files cannot be used, and why.
#[derive(Debug)]
pub enum Unusable {
    Certificate(String),
    Key(String),
}

#[derive(Clone)]
pub struct Tls(SslAcceptor);

impl Tls {
    /// Of PEM files: the certificate with those between it and its root, and the private key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Unusable> {
        let no_certificate = |error: String| Unusable::Certificate(error);
        let text = std::fs::read(certificate).map_err(|e| no_certificate(e.to_string()))?;
        let chain = X509::stack_from_pem(&text).unwrap_or_default();
        let mut chain = chain.into_iter();
        let own = chain
            .next()
            .ok_or_else(|| no_certificate("there is no certificate in PEM form in it".into()))?;

        let no_key = |error: String| Unusable::Key(error);
        let text = std::fs::read(key).map_err(|e| no_key(e.to_string()))?;
        // Without an answer of ours OpenSSL would ask for a passphrase at the terminal.
        let key = PKey::private_key_from_pem_callback(&text, |_| Ok(0)).map_err(|_| {
            no_key("there is no private key in PEM form without a passphrase in it".into())
        })?;

        let refused = |error: ErrorStack| no_certificate(error.to_string());
        let mut acceptor =
            SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).map_err(refused)?;
        acceptor.set_certificate(&own).map_err(refused)?;
        for between in chain {
            acceptor.add_extra_chain_cert(between).map_err(refused)?;
        }
        let not_its_key = |_| no_key("it is not the key of tls-certificate".into());
        acceptor.set_private_key(&key).map_err(not_its_key)?;
        acceptor.check_private_key().map_err(not_its_key)?;
        Ok(Self(acceptor.build()))
    }

    /// Waits for a client's handshake as long as the client takes.
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<SslStream<TcpStream>, openssl::ssl::Error> {
        let mut stream = SslStream::new(Ssl::new(self.0.context())?, stream)?;
        Pin::new(&mut stream).accept().await?;
        Ok(stream)
    }
}
