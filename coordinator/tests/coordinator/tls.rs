//! The real binary over TLS with certificates of our own making, asked by the real client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use latlas_client::{Client, ClientError, TlsFiles};
use latlas_shared::api::{Page, TableEntry, TokenEntry};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

fn coordinator(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latlas-coordinator"));
    command.args(arguments);
    command
}

/// An authority, and a certificate of it for 127.0.0.1, as files.
struct Certificates {
    dir: TempDir,
}

impl Certificates {
    fn new() -> Certificates {
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
        let files = Certificates { dir: tempfile::tempdir().unwrap() };
        files.put("root.pem", &root.pem());
        for (name, subject) in [("cert.pem", "127.0.0.1"), ("box-cert.pem", "box-17")] {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new([subject.to_owned()]).unwrap();
            let certificate = certificate.signed_by(&key, &root).unwrap();
            files.put(name, &certificate.pem());
            files.put(&name.replace("cert", "key"), &key.serialize_pem());
            let both = format!("{}{}", certificate.pem(), key.serialize_pem());
            files.put(&name.replace("cert", "both"), &both);
        }
        files
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `serve` with these files, and what it prints first.
    fn serve(&self, more: &[&str]) -> Server {
        let mut process = coordinator(&["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.path("data"))
            .arg("--tls-cert")
            .arg(self.path("cert.pem"))
            .arg("--tls-key")
            .arg(self.path("key.pem"))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").unwrap().to_owned();
        Server { process, address }
    }

    fn token(&self, role: &str) -> String {
        let output = coordinator(&["token", "create", "--role", role, "--data"])
            .arg(self.path("data"))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn trusting(ca: &Path, address: &str, token: Option<String>) -> Result<Client, ClientError> {
    let files = TlsFiles { ca: Some(ca.to_owned()), client_cert: None };
    Client::with_tls(&files, address, token)
}

#[tokio::test]
async fn where_certificates_are_asked_for_nobody_is_served_without() {
    let (files, strangers) = (Certificates::new(), Certificates::new());
    let root = files.path("root.pem");
    let server = files.serve(&["--client-ca", root.to_str().unwrap()]);
    let list = async |client_cert| {
        let tls = TlsFiles { ca: Some(root.clone()), client_cert };
        let client = Client::with_tls(&tls, &server.address, None).unwrap();
        client.get::<Page<TableEntry>>("v1/tables").await
    };
    assert!(list(Some(files.path("box-both.pem"))).await.unwrap().items.is_empty());
    for none in [None, Some(strangers.path("box-both.pem"))] {
        let error = list(none).await.unwrap_err();
        assert!(matches!(error, ClientError::NotLetIn { .. }), "{error:?}");
        assert!(!error.is_transient());
        assert!(error.to_string().contains("LATLAS_CLIENT_CERT"), "{error}");
    }
}

#[test]
fn a_client_certificate_that_is_none_is_named() {
    let files = Certificates::new();
    let certificate = std::fs::read_to_string(files.path("box-cert.pem")).unwrap();
    let others = KeyPair::generate().unwrap().serialize_pem();
    files.put("mixed.pem", &(certificate + &others));
    let root = Some(files.path("root.pem"));
    for (name, ca) in [("box-cert.pem", None), ("missing.pem", None), ("mixed.pem", root)] {
        let tls = TlsFiles { ca, client_cert: Some(files.path(name)) };
        let error = Client::with_tls(&tls, "https://127.0.0.1:1", None).unwrap_err();
        assert!(matches!(&error, ClientError::ClientCertFile { .. }), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_knows_the_root_is_served_and_no_other() {
    let files = Certificates::new();
    let server = files.serve(&[]);
    assert!(server.address.starts_with("https://127.0.0.1:"), "{}", server.address);
    let root = files.path("root.pem");
    let admin = files.token("admin");
    let client = trusting(&root, &server.address, Some(admin)).unwrap();
    let tokens: Page<TokenEntry> = client.get("v1/tokens").await.unwrap();
    assert_eq!(tokens.items.len(), 1);

    let stranger = Client::new(&server.address, None).unwrap();
    let error = stranger.get::<Page<TableEntry>>("v1/tables").await.unwrap_err();
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error:?}");
    assert!(!error.is_transient());
    let text = error.to_string();
    assert!(text.contains("UnknownIssuer") && text.contains("--ca-file"), "{text}");

    // The same server by a name that is not in its certificate.
    let other_name = server.address.replace("127.0.0.1", "localhost");
    let client = trusting(&root, &other_name, None).unwrap();
    let error = client.get::<Page<TableEntry>>("v1/tables").await.unwrap_err();
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error:?}");
}

/// What speaks no TLS is not served, and does not keep others from it.
#[tokio::test]
async fn plain_http_on_a_tls_port_is_cut_off() {
    let files = Certificates::new();
    let server = files.serve(&[]);
    let address = server.address.strip_prefix("https://").unwrap();
    // Says nothing at all, and stays.
    let _silent = TcpStream::connect(address).unwrap();
    let mut plain = TcpStream::connect(address).unwrap();
    write!(plain, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // An alert of TLS or a closed connection, and no HTTP.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let root = files.path("root.pem");
    let client = trusting(&root, &server.address, None).unwrap();
    let tables: Page<TableEntry> = client.get("v1/tables").await.unwrap();
    assert!(tables.items.is_empty());
}

#[test]
fn files_that_are_no_certificate_or_no_key_are_named() {
    let files = Certificates::new();
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let other = files.put("other.pem", &KeyPair::generate().unwrap().serialize_pem());
    let text = files.put("text.pem", "nothing in PEM here\n");
    let (root, authorities) = (files.path("root.pem"), files.put("authorities.pem", ""));
    let missing = files.path("missing.pem");
    for (cert, key, ca, said) in [
        (&missing, &key, &root, "missing.pem can't be read"),
        (&text, &key, &root, "text.pem contains no certificate"),
        (&cert, &missing, &root, "missing.pem can't be read"),
        (&cert, &text, &root, "text.pem can't be read"),
        (&cert, &other, &root, "can't be served with the key in"),
        (&cert, &key, &authorities, "authorities.pem contains no certificate"),
    ] {
        let output = coordinator(&["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(files.path("data"))
            .arg("--tls-cert")
            .arg(cert)
            .arg("--tls-key")
            .arg(key)
            .arg("--client-ca")
            .arg(ca)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn a_ca_file_that_is_none_is_named() {
    let files = Certificates::new();
    let text = files.put("text.pem", "nothing in PEM here\n");
    let broken =
        files.put("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for path in [&text, &broken, &files.path("missing.pem")] {
        let error = trusting(path, "https://127.0.0.1:1", None).unwrap_err();
        assert!(matches!(&error, ClientError::CaFile { path: named, .. } if named == path));
        assert!(error.to_string().contains("LATLAS_CA_FILE"), "{error}");
    }
}
