"""Requests with something wrong in them."""

from __future__ import annotations

import random


def nonsense(draw: random.Random) -> bytes:
    """A request with something wrong in it, or nothing but bytes."""
    words = [
        "GET", "POST", "HEAD", "BREW", "/", "/api/scores?from=", "/events?sound=", "/alerts/", "/clips/", "/login", "%00", "%ff",
        "../", "HTTP/1.1", "HTTP/9.9", "Host: localhost", "Content-Length: -1", "Content-Length: 5", "Range: bytes=9-1",
        "Range: bytes=-1,0-0,5-", "Cookie: asd_session=" + "x" * 200, "Transfer-Encoding: chunked", "nan", "1e999", "-5", "\x00", "é",
    ]  # fmt: skip
    if draw.random() < 0.2:
        return draw.randbytes(draw.randint(1, 300))
    path = "".join(draw.choice(words[4:13]) + draw.choice(["", "nan", "1e400", "-1", "%", "&to=0"]) for _ in range(2))
    lines = [
        f"{draw.choice(words[:4])} {path} {draw.choice(words[13:15])}",
        draw.choice(["Host: localhost", "Host: x", ""]),
    ]
    lines += [draw.choice(words[15:]) for _ in range(draw.randint(0, 4))]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + draw.randbytes(draw.randint(0, 20))
