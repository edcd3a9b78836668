//! TLS of a server: its certificate, its key, and whose clients it lets in.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;

use crate::error::Result;
use crate::grpc::tls::{PROTOCOL, authorities, certificates, private_key, provider, unusable};

/// What takes up connections with this certificate chain and its key, and with `client_ca` only those of clients with a
/// certificate of that authority. All are PEM.
pub fn acceptor(chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<Arc<ServerConfig>> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|err| unusable("TLS", &err))?;
    let builder = match client_ca {
        Some(client_ca) => {
            let what = "the certificates of the clients' authority";
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(client_ca, what)?), provider)
                    .build()
                    .map_err(|err| unusable(what, &err))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(certificates(chain, "the certificate chain")?, private_key(key)?)
        .map_err(|err| unusable("the certificate and its private key", &err))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}
