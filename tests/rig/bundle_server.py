"""A static web server on this machine that offers bundles, and does what bad servers and networks do."""

from __future__ import annotations

import hashlib
import random
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

CUT, WRONG, MISSING, SLOW, OTHER_TAG, BUSY = "cut", "wrong", "missing", "slow", "other tag", "busy"
FAULTS = (CUT, WRONG, MISSING, SLOW, OTHER_TAG, BUSY)


def write_keys(folder: Path) -> tuple[Path, Path]:
    """A private and a public key as openssl writes them."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / "bundle-key.pem", folder / "bundle-key.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@dataclass
class BundleServer:
    """`with BundleServer(folder) as server:`."""

    folder: Path
    fault_of: Callable[[str], str | None] = lambda _: None
    """Which fault an answer has; asked with the path."""
    slow_s: float = 0.02
    """From one slow byte to the next."""
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)
    """Path, Range and status of each answer."""
    faults: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def sometimes(seed: int, share: float) -> Callable[[str], str | None]:
    """Faults by chance, so many of all answers."""
    dice, lock = random.Random(seed), threading.Lock()

    def fault(_: str) -> str | None:
        with lock:
            return dice.choice(FAULTS) if dice.random() < share else None

    return fault


def _handler(rig: BundleServer) -> type[BaseHTTPRequestHandler]:  # noqa: C901  # a class with what it is made for
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            """Nobody reads it."""

        def do_GET(self) -> None:
            fault = rig.fault_of(self.path)
            rig.faults[fault or "none"] += 1
            file = rig.folder / self.path.lstrip("/")
            if fault == MISSING or not file.is_file():
                self._answer(404, b"")
            elif fault == BUSY:
                self._answer(503, b"later")
            else:
                content = file.read_bytes()
                digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
                self._send(content, f'"{random.random() if fault == OTHER_TAG else digest}"', fault)

        def _send(self, content: bytes, tag: str, fault: str | None) -> None:
            if self.headers.get("If-None-Match") == tag:
                self._answer(304, b"", tag)
                return
            if fault == WRONG and content:
                place = random.randrange(len(content))
                content = content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]
            wanted = self.headers.get("Range")
            if wanted is None:
                self._answer(200, content, tag, fault)
                return
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self._answer(416, b"", tag)
                return
            part = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
            self._answer(206, content[begin:], tag, fault, part)

        def _answer(
            self, status: int, body: bytes, tag: str = "", fault: str | None = None, extra: dict[str, str] | None = None
        ) -> None:
            rig.asked.append((self.path, self.headers.get("Range"), status))
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in {**({"ETag": tag} if tag else {}), **(extra or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if fault == CUT:
                    self.wfile.write(body[: len(body) // 2])
                    self.close_connection = True
                elif fault == SLOW:
                    for n in range(0, len(body), max(1, len(body) // 20)):
                        self.wfile.write(body[n : n + max(1, len(body) // 20)])
                        self.wfile.flush()
                        time.sleep(rig.slow_s)
                else:
                    self.wfile.write(body)
            except OSError:  # whoever asked is gone, or was killed
                self.close_connection = True

    return Handler


@contextmanager
def tls_server(folder: Path, certificates: Path) -> Iterator[tuple[str, Path]]:
    """The same over TLS, with a certificate of its own: the URL, and that certificate."""
    certificate, key = certificates / "tls.pem", certificates / "tls-key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*words, *names], check=True, capture_output=True)
    rig = BundleServer(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(rig))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}", certificate
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
