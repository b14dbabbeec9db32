//! The webhook's certificate, read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a certificate is of no use. The message names the file.
#[derive(Debug, thiserror::Error)]
#[error("the certificate cannot be used: {0}")]
pub struct CertificateError(String);

/// A certificate in two files.
pub(super) struct Certificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    /// What the files held when it was read.
    held: (Vec<u8>, Vec<u8>),
    config: Arc<ServerConfig>,
    /// What was said of the files last, so that it is said once.
    told: Option<String>,
}

impl Certificate {
    pub(super) fn read(cert_file: PathBuf, key_file: PathBuf) -> Result<Self, CertificateError> {
        let held = (bytes(&cert_file)?, bytes(&key_file)?);
        let config = config(&held.0, &held.1, &cert_file, &key_file)?;
        Ok(Self { cert_file, key_file, held, config, told: None })
    }

    /// For connections from now on.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Reads the files again; what they hold is used if it can be, and else the old one stays.
    pub(super) fn refresh(&mut self) {
        match self.reread() {
            Ok(false) => {}
            Ok(true) => {
                self.told = None;
                tracing::info!(file = %self.cert_file.display(), "a new certificate is in use");
            }
            Err(error) => {
                let message = error.to_string();
                if self.told.as_ref() != Some(&message) {
                    tracing::error!(error = message, "the old certificate stays in use");
                    self.told = Some(message);
                }
            }
        }
    }

    fn reread(&mut self) -> Result<bool, CertificateError> {
        let held = (bytes(&self.cert_file)?, bytes(&self.key_file)?);
        if held == self.held {
            return Ok(false);
        }
        self.config = config(&held.0, &held.1, &self.cert_file, &self.key_file)?;
        self.held = held;
        Ok(true)
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let told = |error: std::io::Error| CertificateError(format!("{}: {error}", path.display()));
    if std::fs::metadata(path).map_err(told)?.len() > FILE_BYTES_MAX {
        return Err(CertificateError(format!("{} is too large", path.display())));
    }
    std::fs::read(path).map_err(told)
}

fn config(
    cert: &[u8],
    key: &[u8],
    cert_file: &Path,
    key_file: &Path,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let none = |what: &str, path: &Path| {
        CertificateError(format!("{} holds no {what} in PEM form", path.display()))
    };
    let chain = CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| none("certificate", cert_file))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| none("private key", key_file))?;
    let builder = ServerConfig::builder().with_no_client_auth();
    let built = builder.with_single_cert(chain, key);
    let mut config =
        built.map_err(|error| CertificateError(format!("{}: {error}", cert_file.display())))?;
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}
