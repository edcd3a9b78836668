//! TLS of a server: its certificate, its key, and whose clients it lets in.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::error::{Code, Error, Result};

/// What gRPC speaks, by its name in TLS.
const PROTOCOL: &[u8] = b"h2";

/// What takes up connections with this certificate chain and its key, and with `client_ca` only those of clients with a
/// certificate of that authority. All are PEM.
pub fn acceptor(chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<TlsAcceptor> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|err| unusable("TLS", &err))?;
    let builder = match client_ca {
        Some(client_ca) => builder.with_client_cert_verifier(client_verifier(client_ca, &provider)?),
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|err| unusable("the private key (PEM)", &err))?;
    let mut config = builder
        .with_single_cert(certificates(chain, "the certificate chain")?, key)
        .map_err(|err| unusable("the certificate and its private key", &err))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn client_verifier(
    client_ca: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>> {
    let what = "the certificates of the clients' authority";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(client_ca, what)? {
        roots.add(certificate).map_err(|err| unusable(what, &err))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|err| unusable(what, &err))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|err| unusable(what, &err))?;
    if found.is_empty() {
        return Err(unusable(what, &"there is no BEGIN CERTIFICATE in it"));
    }
    Ok(found)
}

fn unusable(what: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(Code::InvalidArgument, format!("{what} cannot be used: {why}"))
}
