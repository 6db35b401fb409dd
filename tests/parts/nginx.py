"""A real nginx (Debian package `nginx`) with one site, in a folder of its own."""

from __future__ import annotations

import datetime
import os
import shutil
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.parts.process import ServerProcess
from tests.parts.require import MissingPartError

_MAIN = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def find_nginx() -> str:
    """The program. Raises MissingPartError where it is not installed."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise MissingPartError("no nginx: apt-get install nginx")
    return found


class Certificate:
    """A certificate for `localhost` that only `trust` trusts."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.file = folder / "localhost.pem"
        self.key_file = folder / "localhost.key"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        self.key_file.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
        self.trust = ssl.create_default_context(cafile=str(self.file))


class Nginx(ServerProcess):
    """nginx with `site` included in its `http` block, ready when it takes connections on `port`."""

    def __init__(self, folder: Path, site: str, *, port: int) -> None:
        (folder / "site.conf").write_text(site)
        # A master that runs as root gives its workers away to somebody who cannot read the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user=user))
        super().__init__(
            "nginx",
            [find_nginx(), "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"],
            ready=lambda server: server.wait_for_port(port),
        )
