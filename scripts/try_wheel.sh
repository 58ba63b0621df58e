#!/bin/sh
# Builds the source archive, and from that the wheel, as a release does; installs the wheel into a clean environment, and
# trains with it through a real broker.
#
#   scripts/try_wheel.sh               builds into dist/ and tries what it has built
#   scripts/try_wheel.sh FILE.whl      tries this wheel
#
# PYTHON=python3.12   the interpreter (default: python3)
set -eu

cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/sbin
export PATH PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT INT TERM

say() { printf '==> %s\n' "$*"; }

if [ $# -gt 0 ]; then
    wheel=$1
else
    say "building the source archive and the wheel"
    rm -rf dist
    "$python" -m venv "$place/build"
    "$place/build/bin/pip" install --quiet build
    "$place/build/bin/python" -m build --outdir dist
    wheel=$(ls dist/*.whl)
fi
wheel=$(cd "$(dirname "$wheel")" && pwd)/$(basename "$wheel")

say "installing $(basename "$wheel") into a clean environment"
"$python" -m venv "$place/clean"
"$place/clean/bin/pip" install --quiet "$wheel"
cd "$place" # away from the sources
for program in fl-aggregator fl-edge fl-mqtt; do
    clean/bin/$program --version
done
if clean/bin/pip show --quiet torch 2>/dev/null; then
    echo "torch was installed without the extra 'edge'" >&2
    exit 1
fi

say "training with it"
clean/bin/fl-aggregator simulate --task digits-mlp --clients 3 --per-round 2 --rounds 3 --run-dir run
[ -s run/model.safetensors ]
say "the wheel works"
