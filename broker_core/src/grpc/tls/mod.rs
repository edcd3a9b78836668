//! What both ends of TLS have in common: PEM, the cryptography, and the stream of bytes.

mod stream;

use std::fmt::Display;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, RootCertStore};

use crate::error::{Code, Error, Result};

pub use self::stream::TlsStream;

/// What gRPC speaks, by its name in TLS.
pub const PROTOCOL: &[u8] = b"h2";
/// The cryptography, with AES-128 in front of AES-256: it is as far from being broken, and takes a quarter less time.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    Arc::new(provider)
}

/// The certificates in a PEM file; `what` it is, for the error.
pub fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|err| unusable(what, &err))?;
    if found.is_empty() {
        return Err(unusable(what, &"there is no BEGIN CERTIFICATE in it"));
    }
    Ok(found)
}

/// The same, as authorities to trust.
pub fn authorities(pem: &[u8], what: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, what)? {
        roots.add(certificate).map_err(|err| unusable(what, &err))?;
    }
    Ok(roots)
}

/// The private key in a PEM file.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|err| unusable("the private key (PEM)", &err))
}

/// What cannot be used, and why.
pub fn unusable(what: &str, why: &dyn Display) -> Error {
    Error::new(Code::InvalidArgument, format!("{what} cannot be used: {why}"))
}
