"""Thousands of broken configurations: each is accepted, or refused with file, key and reason, in one line, and never with a traceback.

`PYTHONPATH=tests python -m soak.configuration --files 5000`
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from asd_daemon.errors import AsdError, SettingsError
from asd_daemon.settings.plan import CommandLineOptions, make_plan
from asd_daemon.settings.sample import sample_text

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        3,
        10,
        1e9,
        -0.5,
        1e308,
        float("inf"),
        float("nan"),
        "",
        " ",
        "fan",
        "on",
        "a/b",
        "ä",
        "x" * 300,
    ),
    *(
        "usb-id:0d8c:0014",
        "usb-path:1-1.2",
        "fan?fail=",
        "fan?x",
        "-1",
        "1e3",
        "\x07",
        [],
        [1, 2],
        {},
        {"device": "default"},
    ),
    *({"host": 1}, {"fan": None}, {1: 2}, "https://example.org/ping", "ftp://x", 65_536, 8883, 2**70, "2026-01-31"),
)
PLACE = re.compile(r"(?::\d+)?: (?P<key>\S.*?): (?P<reason>\S.*)")


def mutated(rng: np.random.Generator) -> bytes:
    """One configuration, broken or not: by value, by key, by line or by byte."""
    uncommented = re.sub(r"^(\s*)#(\w+: )", r"\1\2", sample_text(), flags=re.MULTILINE)
    if rng.random() < 0.9:  # a machine has one source
        uncommented = re.sub(r"^      (file|folder|command|simulate): .*\n", "", uncommented, flags=re.MULTILINE)
        uncommented = uncommented.replace("  tls: false", "  tls: true")
        uncommented = re.sub(r"^  password_credential: .*\n", "", uncommented, flags=re.MULTILINE)
    how = rng.integers(0, 4)
    if how <= 1:
        content = yaml.safe_load(sample_text() if rng.random() < 0.3 else uncommented)
        for _ in range(int(rng.integers(1, 4))):
            _change(content, rng, with_keys=how == 1)
        return yaml.safe_dump(content, allow_unicode=True).encode()
    lines = uncommented.splitlines()
    if how == 2:
        for _ in range(int(rng.integers(1, 5))):
            _shuffle(lines, rng)
        return "\n".join(lines).encode()
    data = bytearray("\n".join(lines).encode())
    for _ in range(int(rng.integers(1, 8))):
        data[int(rng.integers(0, len(data)))] = int(
            rng.integers(0, 256) if rng.random() < 0.05 else rng.integers(32, 127)
        )
    return bytes(data)


def _change(content: Any, rng: np.random.Generator, *, with_keys: bool) -> None:
    """Replace, remove or add one thing somewhere in nested mappings."""
    while isinstance(content, dict) and content:
        key = list(content)[int(rng.integers(0, len(content)))]
        inner = content[key]
        if isinstance(inner, dict) and inner and rng.random() < 0.75:
            content = inner
            continue
        value = VALUES[int(rng.integers(0, len(VALUES)))]
        if not with_keys:
            content[key] = value
        elif rng.random() < 0.5:
            content[str(key)[:-1] + "q"] = content.pop(key)
        else:
            content[f"k{int(rng.integers(0, 9))}"] = value
        return


def _shuffle(lines: list[str], rng: np.random.Generator) -> None:
    """Drop, double, indent or uncomment a line."""
    number, what = int(rng.integers(0, len(lines))), int(rng.integers(0, 4))
    if what == 0:
        lines.pop(number)
    elif what == 1:
        lines.insert(number, lines[number])
    elif what == 2:
        lines[number] = " " * int(rng.integers(1, 5)) + lines[number]
    else:
        lines[number] = lines[number].replace("#", "", 1)


def verdict(file: Path) -> str:
    """`accepted`, or what kind of refusal.

    Raises:
        AssertionError: a refusal that does not say file, key and reason in one line.
    """
    try:
        make_plan(CommandLineOptions(config=file, bundle=Path("/none")))
    except SettingsError as e:
        message = str(e)
        assert "\n" not in message, message
        assert message.startswith(str(file)), message
        rest = message.removeprefix(str(file))
        for kind in ("is no YAML", "can't be read", "must hold keys"):
            if kind in rest:
                return kind
        found = PLACE.match(rest)
        assert found, message
        # The key is one that stands in the file, or one that is missing there
        tops = {str(key) for key in yaml.safe_load(file.read_bytes())} | {"(top)"}
        assert found["key"].split(".")[0] in tops or any(rest.startswith(top, rest.index(": ") + 2) for top in tops), (
            message
        )
        return "refused by key"
    except AsdError as e:  # the file is well, but names no machine to listen to
        assert str(file) in str(e), e
        return "no machine"
    return "accepted"


def fuzz(files: int, folder: Path, seed: int = 0) -> Counter[str]:
    """Try so many files; how many had which verdict."""
    rng, counts = np.random.default_rng(seed), Counter[str]()
    for number in range(files):
        file = folder / f"{number % 50}.yaml"
        file.write_bytes(mutated(rng))
        try:
            counts[verdict(file)] += 1
        except Exception:
            sys.stderr.write(f"configuration {number} of seed {seed}:\n{file.read_text(errors='replace')}\n")
            raise
    return counts


def main() -> None:
    """Fuzz, and print the verdicts."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--files", type=int, default=5000)
    words.add_argument("--seed", type=int, default=0)
    wanted = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz(wanted.files, Path(folder), wanted.seed)
    told = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    sys.stdout.write(f"{wanted.files} configurations: {told}; 0 without file, key and reason\n")


if __name__ == "__main__":
    main()
