//! TLS on both sides: rustls, with the system's roots or the user's, never openssl.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::{CertificateFiles, ServerTls, Upstream, UpstreamHttp2};

/// Why TLS could not be set up. Names the file and the key of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("{key}: cannot read {path}: {source}")]
    Read {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds nothing of use.
    #[error("{key}: {path} holds no usable {what} in PEM form")]
    Empty {
        /// The configuration's key.
        key: &'static str,
        /// The file.
        path: String,
        /// What was looked for.
        what: &'static str,
    },
    /// The system has no trusted roots.
    #[error("no trusted certificates found on this system: set the upstream's ca_file")]
    NoRoots,
    /// rustls refused the combination.
    #[error("{key}: {source}")]
    Refused {
        /// The configuration's key.
        key: &'static str,
        /// Why.
        source: rustls::Error,
    },
}

/// The client side towards `upstream`.
pub fn client(upstream: &Upstream) -> Result<ClientConfig, TlsError> {
    let roots = match &upstream.ca_file {
        Some(path) => roots_from(path)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match &upstream.client_certificate {
        Some(files) => {
            let (chain, key) = certificate(files, "client_cert_file", "client_key_file")?;
            let refused = |source| TlsError::Refused { key: "client_cert_file", source };
            builder.with_client_auth_cert(chain, key).map_err(refused)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match upstream.http2 {
        UpstreamHttp2::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        UpstreamHttp2::Always => vec![b"h2".to_vec()],
        UpstreamHttp2::Off => vec![b"http/1.1".to_vec()],
    };
    Ok(config)
}

/// The server side towards clients.
pub fn server(tls: &ServerTls, http2: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = certificate(&tls.certificate, "tls.cert_file", "tls.key_file")?;
    let refused = |source| TlsError::Refused { key: "tls.cert_file", source };
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
    if http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

fn certificate(
    files: &CertificateFiles,
    cert_key: &'static str,
    key_key: &'static str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let chain = certificates(&files.cert_file, cert_key)?;
    let mut reader = open(&files.key_file, key_key)?;
    let path = || files.key_file.display().to_string();
    let key = PrivateKeyDer::from_pem_reader(&mut reader).map_err(|_| TlsError::Empty {
        key: key_key,
        path: path(),
        what: "private key",
    })?;
    Ok((chain, key))
}

fn certificates(path: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_reader_iter(open(path, key)?).collect::<Result<Vec<_>, _>>();
    let empty = || TlsError::Empty { key, path: path.display().to_string(), what: "certificate" };
    found.ok().filter(|found| !found.is_empty()).ok_or_else(empty)
}

fn roots_from(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path, "ca_file")?);
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

fn open(path: &Path, key: &'static str) -> Result<File, TlsError> {
    File::open(path).map_err(|source| TlsError::Read {
        key,
        path: path.display().to_string(),
        source,
    })
}
