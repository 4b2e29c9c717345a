//! TLS by rustls, with the certificates of the system or of the application.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sessionkit::{Error, ErrorKind, Result};
use tokio_rustls::TlsConnector;

/// What the application says about certificates, in PEM.
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    pub(crate) roots: Option<Vec<u8>>,
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Certificates {
    pub(crate) fn connector(&self) -> Result<TlsConnector> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid("TLS cannot be set up").with_source(error))?
            .with_root_certificates(self.root_store()?);
        let config = match &self.identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| invalid("the private key of the client is not one in PEM"))?;
                config
                    .with_client_auth_cert(certificates(chain)?, key)
                    .map_err(|error| {
                        invalid("the certificate of the client cannot be used").with_source(error)
                    })?
            }
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }

    fn root_store(&self) -> Result<RootCertStore> {
        let mut store = RootCertStore::empty();
        match &self.roots {
            Some(pem) => {
                for certificate in certificates(pem)? {
                    store.add(certificate).map_err(|error| {
                        invalid("a root certificate cannot be used").with_source(error)
                    })?;
                }
            }
            // Systems carry old certificates that cannot be read; the others count.
            None => drop(
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
            ),
        }
        if store.is_empty() {
            return Err(invalid("there is no root certificate to trust"));
        }
        Ok(store)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| invalid("the certificates are not in PEM"))?;
    if certificates.is_empty() {
        return Err(invalid("the PEM text holds no certificate"));
    }
    Ok(certificates)
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}
