"""An Apache Kafka that lets in only who proves itself, over TLS, and a token endpoint for OAUTHBEARER.

Three doors: PLAINTEXT for the test's own tools, SASL_SSL for the program (SCRAM-SHA-512, PLAIN), SASL_PLAINTEXT with
OAUTHBEARER. That one takes unsigned tokens, as Kafka does out of the box: what is tested is that ours gets one.
"""

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from mmcat.cli.processes import free_port
from mmcat.cli.servers import LocalKafka
from tests.support.broker import DEADLINE_S

USER, PASSWORD = "mmcat", "right horse"
STORE_PASSWORD = "of the test's own store"
REAUTHENTICATE_MS = 2_000
"""How long a connection lives without proving itself again: a changed password is noticed so soon."""
_LOGIN = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the broker listens, and the file with the certificate that its clients trust."""

    plaintext: str
    scram: str
    oauth: str
    certificate: Path

    def scram_env(self, password: str = PASSWORD, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """What a program of ours needs to come in by TLS and a password."""
        return {
            "MMCAT_KAFKA__BOOTSTRAP_SERVERS": self.scram,
            "MMCAT_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "MMCAT_KAFKA__SASL_MECHANISM": mechanism,
            "MMCAT_KAFKA__SASL_USERNAME": USER,
            "MMCAT_KAFKA__SASL_PASSWORD": password,
            "MMCAT_KAFKA__SSL_CA_LOCATION": str(self.certificate),
        }


@contextmanager
def secure_kafka(folder: Path) -> Iterator[Doors]:
    """Start one; `folder` takes the key and the certificate."""
    store, certificate = folder / "broker.p12", folder / "broker.pem"
    alias = ["-alias", "broker", "-keystore", str(store), "-storepass", STORE_PASSWORD]
    subject = ["-dname", "CN=localhost", "-ext", "SAN=ip:127.0.0.1,dns:localhost", "-validity", "2"]
    subprocess.run(["keytool", "-genkeypair", *alias, "-keyalg", "EC", "-storetype", "PKCS12", *subject], check=True)
    subprocess.run(["keytool", "-exportcert", "-rfc", *alias, "-file", str(certificate)], check=True)
    plain, scram, oauth, controller = (f"127.0.0.1:{free_port()}" for _ in range(4))
    doors = f"PLAINTEXT://{plain},SCRAM://{scram},OAUTH://{oauth}"
    settings = {
        "listeners": f"{doors},CONTROLLER://{controller}",
        "advertised.listeners": doors,
        "controller.quorum.voters": f"1@{controller}",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,OAUTH:SASL_PLAINTEXT"
        ),
        # Everybody may do everything until somebody says otherwise; the test's own tools always may.
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(store),
        "ssl.keystore.password": STORE_PASSWORD,
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{_LOGIN}.scram.ScramLoginModule required;",
        "listener.name.scram.plain.sasl.jaas.config": (
            f'{_LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        ),
        "listener.name.scram.connections.max.reauth.ms": str(REAUTHENTICATE_MS),
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": (f"{_LOGIN}.oauthbearer.OAuthBearerLoginModule required;"),
    }
    with LocalKafka(port=int(plain.rpartition(":")[2]), settings=settings, scram={USER: PASSWORD}) as broker:
        assert broker.bootstrap == plain
        yield Doors(plain, scram, oauth, certificate)


def change_password(doors: Doors, password: str) -> None:
    """Give the user another one; who is connected is asked for it within `REAUTHENTICATE_MS`."""
    admin = AdminClient({"bootstrap.servers": doors.plaintext})
    wanted = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion(USER, wanted, password.encode())
    for future in admin.alter_user_scram_credentials([change]).values():
        future.result(DEADLINE_S)


def forbid_writing(doors: Doors, topic: str) -> None:
    """Let the user read the topic from now on, and no more."""
    admin = AdminClient({"bootstrap.servers": doors.plaintext})
    allowed = [
        AclBinding(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{USER}", "*", one, AclPermissionType.ALLOW
        )
        for one in (AclOperation.READ, AclOperation.DESCRIBE)
    ]
    for future in admin.create_acls(allowed).values():
        future.result(DEADLINE_S)


@contextmanager
def token_endpoint(secret: str) -> Iterator[tuple[str, list[str]]]:
    """An OpenID Connect token endpoint: its address, and the names of those it gave a token to."""
    given: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            basic = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
            name, _, word = basic.partition(":")
            if word == secret:
                given.append(name)
                claims = {"sub": name, "iat": int(time.time()), "exp": int(time.time()) + 3600}
                self._say(200, {"access_token": _unsigned(claims), "token_type": "Bearer", "expires_in": 3600})
            else:
                self._say(401, {"error": "invalid_client"})

        def _say(self, status: int, what: dict[str, object]) -> None:
            body = json.dumps(what).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            """Nothing to say."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/token", given
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _unsigned(claims: dict[str, object]) -> str:
    parts = ({"alg": "none"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."
