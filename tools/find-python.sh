#!/bin/sh
# Print the path of a Python that can make virtual environments: of the version given ("3.12"), or
# any from 3.11 on. Looks on PATH, then among pyenv's.
set -eu

wanted=${1:-}
oldest=3.11
if [ -n "$wanted" ]; then names="python$wanted"; else names="python3 python3.13 python3.12 python3.11"; fi

pyenv=${PYENV_ROOT:-$HOME/.pyenv}/versions
candidates=""
for name in $names; do
    candidates="$candidates $(command -v "$name" || true)"
done
for folder in "$pyenv/${wanted:-3}".*; do
    candidates="$candidates $folder/bin/python"
done

without_venv=""
for python in $candidates; do
    # A pyenv shim is on PATH for versions that aren't switched on, and fails.
    "$python" -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$oldest'.split('.'))))" \
        2>/dev/null || continue
    if "$python" -c "import ensurepip, venv" 2>/dev/null; then
        "$python" -c "import sys; print(sys.executable)"
        exit 0
    fi
    without_venv=$python
done

if [ -n "$without_venv" ]; then
    version=$("$without_venv" -c "import sys; print('%d.%d' % sys.version_info[:2])")
    echo "$without_venv can't make virtual environments: install venv and ensurepip" \
        "(on Debian and Ubuntu: apt-get install python$version-venv)." >&2
else
    echo "There is no Python ${wanted:-$oldest or newer} on PATH or in $pyenv: install one" \
        "(on Debian and Ubuntu: apt-get install python3 python3-venv)." >&2
fi
exit 1
