#!/bin/sh
# The quick tests of the edge in an environment that is thrown away: with the oldest versions of its libraries that pyproject.toml allows
# (constraints-oldest.txt), or with the newest Python that this machine has. A minute each.
# usage: edge-tests.sh oldest|newest PYTHON
set -eu
cd "$(dirname "$0")/.."
tests="tests/daemon/settings tests/daemon/tell/storage tests/daemon/tell/notifications tests/daemon/judge/alarm tests/daemon/judge/bundle tests/daemon/judge/scoring
    tests/daemon/hear/windows tests/daemon/run/test_service.py tests/daemon/run/test_machine_alerts.py
    tests/daemon/cli/test_repeated_options.py tests/daemon/test_edge_imports.py
    tests/daemon/test_waveform.py"

minor() { # minor PYTHON: 13 for Python 3.13, nothing where it does not run
    "$1" -c 'import sys; print(sys.version_info[1] if sys.version_info[0] == 3 else "")' 2>/dev/null || true
}

python=$2
constraints=constraints-oldest.txt
if [ "$1" = newest ]; then
    constraints=constraints.txt
    best=$(minor "$python")
    for found in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3 $(command -v python3.12 python3.13 python3.14 || true); do
        other=$(minor "$found")
        if [ "${other:-0}" -gt "$best" ] && [ "$other" -le 13 ]; then
            python=$found best=$other
        fi
    done
    if [ "$best" = "$(minor "$2")" ]; then
        echo "test-newest: no Python newer than 3.$best is here; skipped"
        exit 0
    fi
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo "test-$1: Python 3.$(minor "$python"), $constraints"
"$python" -m venv "$folder"
PIP_CONSTRAINT= "$folder/bin/pip" install --quiet --constraint $constraints '.[notify]' aiosmtpd pytest pytest-timeout hypothesis onnx psutil
# shellcheck disable=SC2086
OMP_NUM_THREADS=1 "$folder/bin/python" -m pytest -q -p no:cacheprovider --durations=0 --durations-min=10 $tests
