//! TLS to a broker.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::Result;
use crate::grpc::tls::{PROTOCOL, TlsStream, authorities, certificates, private_key, provider, unusable};

/// Whom to trust, and what to show. All is PEM.
#[derive(Default)]
pub struct Tls {
    /// Whom to trust; None: whom this machine trusts.
    pub ca: Option<Vec<u8>>,
    /// This client's certificate chain and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// What connects so.
    pub(super) fn connector(&self) -> Result<Connector> {
        let roots = match &self.ca {
            Some(ca) => authorities(ca, "the certificates of the authority")?,
            None => of_this_machine()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|err| unusable("TLS", &err))?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            Some((chain, key)) => builder
                .with_client_auth_cert(certificates(chain, "the client's certificate chain")?, private_key(key)?)
                .map_err(|err| unusable("the client's certificate and its private key", &err))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Connector(Arc::new(config)))
    }
}

fn of_this_machine() -> Result<RootCertStore> {
    let what = "the certificates that this machine trusts";
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(unusable(what, &format!("{why}; give those of the broker's authority in ca_file")));
    }
    Ok(roots)
}

/// Makes connections with TLS.
#[derive(Clone)]
pub(super) struct Connector(Arc<ClientConfig>);

impl Connector {
    /// Connects to the host and port of `uri`, within `limit`.
    pub async fn connect(
        self,
        uri: Uri,
        limit: Duration,
    ) -> io::Result<TokioIo<TlsStream<TcpStream, UnbufferedClientConnection>>> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or_default();
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        let connecting = async {
            let socket = TcpStream::connect((host.as_str(), port)).await?;
            socket.set_nodelay(true)?;
            let end = UnbufferedClientConnection::new(self.0, name).map_err(io::Error::other)?;
            Ok(TokioIo::new(TlsStream::agreed(socket, end).await?))
        };
        timeout(limit, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
