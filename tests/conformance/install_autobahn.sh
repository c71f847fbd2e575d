#!/bin/sh
# Installs the Autobahn test suite outside the repository, once per set of pins. It needs a Python 2.7 with pip
# (found in PATH or in pyenv) and leaves that as it is; without one the test that wants the suite says so.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
home=${XDG_CACHE_HOME:-$HOME/.cache}/ring/autobahn

if [ -e "$home/pins" ] && cmp -s "$home/pins" "$here/autobahn.txt"; then
    exit 0
fi
python=$(sh "$here/../../.ci/find-python" 2.7) || {
    echo "install_autobahn: no Python 2.7 on this machine (pyenv install 2.7): no conformance suite" >&2
    exit 0
}
echo "install_autobahn: installing the Autobahn test suite for $python in $home (once)"
rm -rf "$home"
mkdir -p "$home"
PIP_REQUIRE_VIRTUALENV=0 "$python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
    --no-deps --require-hashes --target "$home/site" -r "$here/autobahn.txt" 2>"$home/log" ||
    { cat "$home/log" >&2; [ "${CI:-}" != true ]; exit; }
printf '%s\n' "$python" >"$home/python"
cp "$here/autobahn.txt" "$home/pins"  # last: what has it is whole
