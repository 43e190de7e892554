//! Certificates and keys. They are read anew for each attempt, so that renewed ones are used.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// HTTP/2's name in the negotiation of protocols.
const H2: &[u8] = b"h2";

/// Where certificates and keys are, in PEM.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Who may have signed the server's certificate.
    pub ca: PathBuf,
    /// The agent's own certificate and key, where the server asks for one.
    pub own: Option<(PathBuf, PathBuf)>,
    /// Protocols to be named beside HTTP/2, for balancers that tell connections apart by them.
    pub protocols: Vec<String>,
}

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file that is not there, or has no such thing in it.
    #[error("cannot read {what} from {path}")]
    File {
        /// Which.
        what: &'static str,
        /// Where.
        path: String,
        /// Why not.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificates or a key that cannot be used.
    #[error("cannot use {what} from {path}")]
    Content {
        /// Which.
        what: &'static str,
        /// From where.
        path: String,
        /// Why not.
        source: rustls::Error,
    },
    /// A file without certificates.
    #[error("no certificate in {0}")]
    Empty(String),
    /// The library refuses.
    #[error("cannot configure TLS")]
    Setup(#[from] rustls::Error),
}

impl TlsFiles {
    /// Reads everything.
    ///
    /// # Errors
    /// With the file that is at fault.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut config = self.read()?;
        if !config.alpn_protocols.iter().any(|protocol| protocol == H2) {
            config.alpn_protocols.push(H2.to_vec());
        }
        Ok(Arc::new(config))
    }

    /// The same with no protocol beside those that are named.
    ///
    /// # Errors
    /// With the file that is at fault.
    pub fn load_exactly(&self) -> Result<Arc<ClientConfig>, TlsError> {
        Ok(Arc::new(self.read()?))
    }

    fn read(&self) -> Result<ClientConfig, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("CA certificates", &self.ca)? {
            let added = roots.add(certificate);
            added.map_err(|source| content("CA certificates", &self.ca, source))?;
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key_path)) => {
                let chain = certificates("agent certificate", certificate)?;
                let key = PrivateKeyDer::from_pem_file(key_path)
                    .map_err(|source| file("agent key", key_path, source))?;
                let built = builder.with_client_auth_cert(chain, key);
                built.map_err(|source| content("agent certificate and key", certificate, source))?
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.clone().into_bytes()).collect();
        Ok(config)
    }
}

/// The usual algorithms, of which AES with 128 bits is named first, as Go's programs do and as browsers do; the library
/// names the slower one with 256 bits first.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let is_first = |suite: &rustls::SupportedCipherSuite| {
        let suite = suite.suite();
        suite == CipherSuite::TLS13_AES_128_GCM_SHA256
            || suite == CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            || suite == CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    };
    // The order is otherwise kept.
    provider.cipher_suites.sort_by_key(|suite| !is_first(suite));
    Arc::new(provider)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|source| file(what, path, source))?;
    if found.is_empty() { Err(TlsError::Empty(path.display().to_string())) } else { Ok(found) }
}

fn file(what: &'static str, path: &Path, source: rustls_pki_types::pem::Error) -> TlsError {
    TlsError::File { what, path: path.display().to_string(), source }
}

fn content(what: &'static str, path: &Path, source: rustls::Error) -> TlsError {
    TlsError::Content { what, path: path.display().to_string(), source }
}
