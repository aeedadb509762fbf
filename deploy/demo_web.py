"""`make demo-web`: two simulated machines that fail and are repaired again and again, and the page that shows them, until Ctrl-C.

Needs no broker, no microphone and no network. What it keeps is in a folder that is gone afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PORT = 8470
MACHINES = {
    "fan": "fan?fail=rubbing&fail_after=120&repair_after=300",
    "gearbox": "gearbox?seed=3",
}


def main() -> int:
    """Run both programs until they end."""
    with tempfile.TemporaryDirectory(prefix="asd-demo-") as folder:
        machines = {name: {"source": {"simulate": source}} for name, source in MACHINES.items()}
        configuration = Path(folder) / "asd-daemon.yaml"
        configuration.write_text(json.dumps({"node": "demo", "machines": machines, "keep": {"scores_every_s": 30}}))
        environment = {**os.environ, "ASD_STATE_DIR": f"{folder}/state"}
        program = [sys.executable, "-c", "from asd_daemon.cli.program import main; main()"]
        words = ["--config", str(configuration)]
        print(f"The machines of this demo, in your browser: http://127.0.0.1:{PORT}/   (Ctrl-C ends it)", flush=True)
        print("The fan begins to rub after 2 minutes and is repaired after 5.\n", flush=True)
        with (
            subprocess.Popen([*program, "run", *words], env=environment, stdout=subprocess.DEVNULL) as daemon,
            subprocess.Popen([*program, "web", *words, "--port", str(PORT)], env=environment) as page,
        ):
            try:
                return page.wait()
            except KeyboardInterrupt:
                return 0
            finally:
                for process in (page, daemon):
                    process.terminate()


if __name__ == "__main__":
    sys.exit(main())
