//! Certificates of an authority made up for one test, and rustls' both sides that know it.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

/// A certificate authority with a folder for its files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    folder: tempfile::TempDir,
}

/// A certificate with its key, as files and in memory.
pub struct Identity {
    /// The chain, in PEM form.
    pub cert_file: PathBuf,
    /// The key, in PEM form, for its owner's eyes only.
    pub key_file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Authority {
    /// A fresh one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        let certificate = certificate.der().clone();
        Self { issuer: Issuer::new(params, key), certificate, folder }
    }

    /// The file with its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate for `name`: a host or an address.
    pub fn issue(&self, name: &str) -> Identity {
        self.sign(name, name, |_| {})
    }

    /// The same, valid until the day after it began to be, long ago.
    pub fn issue_expired(&self, name: &str) -> Identity {
        self.sign(name, &format!("{name}.expired"), |params| {
            params.not_before = rcgen::date_time_ymd(2024, 1, 1);
            params.not_after = rcgen::date_time_ymd(2024, 1, 2);
        })
    }

    fn sign(&self, name: &str, file: &str, change: impl Fn(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        change(&mut params);
        // With the authority's own name, OpenSSL would take it for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let file = |ending: &str, text: String| {
            let path = self.folder.path().join(format!("{file}.{ending}"));
            write_private(&path, &text);
            path
        };
        Identity {
            cert_file: file("crt", certificate.pem()),
            key_file: file("key", key.serialize_pem()),
            chain: vec![certificate.der().clone()],
            key,
        }
    }

    /// A client's side that trusts this authority alone and offers `protocols`.
    pub fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A server's side as `identity`; it may demand a client certificate of this authority.
    pub fn server(
        &self,
        identity: &Identity,
        demands: bool,
        protocols: &[&str],
    ) -> Arc<ServerConfig> {
        let builder = if demands {
            let verifier = WebPkiClientVerifier::builder(Arc::new(self.roots())).build();
            ServerConfig::builder().with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            ServerConfig::builder().with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
        let config = builder.with_single_cert(identity.chain.clone(), key);
        let mut config = config.expect("a server's side");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("an authority");
        roots
    }
}

fn write_private(path: &Path, text: &str) {
    let file = fs::File::options().create_new(true).write(true).mode(0o600).open(path);
    file.expect("a new file").write_all(text.as_bytes()).expect("written");
}

/// A client's TLS stream to `port`, as `name`.
pub fn connect(
    config: Arc<ClientConfig>,
    name: &str,
    port: u16,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let session = ClientConnection::new(config, name).expect("a session");
    let tcp = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    tcp.set_read_timeout(Some(super::wire::READ_WITHIN)).expect("a timeout");
    StreamOwned::new(session, tcp)
}

/// What an [`Encrypted`] server saw.
#[derive(Default)]
pub struct Seen {
    /// Connections whose handshake succeeded.
    pub connections: AtomicUsize,
    /// The heads of the requests.
    pub heads: Mutex<Vec<String>>,
}

/// Starts an HTTP/1.1 server behind TLS that answers every bodiless request with `answer`.
pub fn serve(config: Arc<ServerConfig>, answer: &'static str) -> (u16, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    std::thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let (config, seen) = (Arc::clone(&config), Arc::clone(&shared));
            std::thread::spawn(move || answer_all(config, tcp, answer, &seen));
        }
    });
    (port, seen)
}

fn answer_all(config: Arc<ServerConfig>, mut tcp: TcpStream, answer: &str, seen: &Seen) {
    drop(tcp.set_read_timeout(Some(super::wire::READ_WITHIN)));
    let mut session = ServerConnection::new(config).expect("a session");
    if session.complete_io(&mut tcp).is_err() {
        return;
    }
    seen.connections.fetch_add(1, Ordering::SeqCst);
    let mut stream = StreamOwned::new(session, tcp);
    while let Some(head) = read_head(&mut stream) {
        seen.heads.lock().expect("not poisoned").push(head);
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads to the blank line; `None` at the end.
pub fn read_head(stream: &mut impl std::io::Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}
