//! The web server nginx, from Debian.

use super::{Server, installed, listen_on, write};
use crate::Error;
use crate::compare::clients::http::SERVER_NAME;
use crate::site::leash;
use std::net::{IpAddr, SocketAddr};

/// A web server with one file, `/image`, and one next to empty, `/hash`, over TCP and over
/// TLS 1.3.
#[derive(Debug)]
pub(in crate::compare) struct Nginx {
    pub(in crate::compare) server: Server,
    pub(in crate::compare) plain: SocketAddr,
    pub(in crate::compare) tls: SocketAddr,
    /// The certificate, in PEM.
    pub(in crate::compare) certificate: String,
}

/// All that is not said here is nginx's own default.
fn config(plain: SocketAddr, tls: SocketAddr, folder: &str) -> String {
    format!(
        "\
daemon off;
# Started by root it would change to a user that cannot read this folder.
user root;
# One for each core.
worker_processes auto;
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log stderr warn;
events {{
    worker_connections 20000;
}}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    # Files stay open between requests.
    open_file_cache max=100;
    open_file_cache_valid 1h;
    # An idle connection is kept, and takes as many requests as an image has ranges.
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {plain} backlog=4096;
        root {folder}/files;
    }}
    server {{
        listen {tls} ssl backlog=4096;
        root {folder}/files;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        ssl_protocols TLSv1.3;
        ssl_ecdh_curve X25519;
        # No client here resumes a session: tickets would cost time for nothing.
        ssl_session_tickets off;
        ssl_session_cache off;
        # A whole TLS record.
        ssl_buffer_size 16k;
    }}
}}
"
    )
}

impl Nginx {
    /// Starts it with this file, on loopback or at `address` within a network namespace.
    pub(in crate::compare) async fn start(
        image: &[u8],
        address: Option<IpAddr>,
        within: Option<&str>,
    ) -> Result<Self, Error> {
        let program = installed("nginx", "nginx-light")?;
        let folder = leash::folder("nginx")?;
        let (plain, tls) = (listen_on(address, 80)?, listen_on(address, 443)?);
        let failed = |error: rcgen::Error| Error::of("a certificate", &error);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()])
            .and_then(|params| params.self_signed(&key))
            .map_err(failed)?
            .pem();
        let path = folder.path().to_owned();
        std::fs::create_dir(path.join("files"))
            .map_err(|error| Error::of("nginx's folder", &error))?;
        write(&path.join("files/image"), image)?;
        write(&path.join("files/hash"), [0; 32])?;
        write(&path.join("certificate.pem"), &certificate)?;
        write(&path.join("key.pem"), key.serialize_pem())?;
        let text = path.display().to_string();
        write(&path.join("nginx.conf"), config(plain, tls, &text))?;
        let config_file = path.join("nginx.conf").display().to_string();
        let arguments = ["-p", &text, "-e", "stderr", "-c", &config_file];
        let ports = [plain.port(), tls.port()];
        let server = Server::start(&program, &arguments, folder, &ports, within).await?;
        Ok(Self {
            server,
            plain,
            tls,
            certificate,
        })
    }
}
