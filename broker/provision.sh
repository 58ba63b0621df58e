#!/bin/sh
# Runs in a container of compose.yaml. Makes accounts and kits in /provision, or changes them as the arguments say
# (revoke 3). Then gives each service, in its own volume below /kits, only the files that it needs.
set -eu
umask 077

out=${OUT:-/provision}
kits=${KITS:-/kits}
if [ $# -gt 0 ]; then
    fl-aggregator provision "$@" --out "$out"
elif ! grep -qs '"settled": *true' "$out/accounts.json"; then
    fl-aggregator provision --out "$out" --edges "$EDGES" --train all --predict all --askers asker,healthcheck \
        --broker-host "$BROKER_HOST" --broker-host localhost --broker-host 127.0.0.1 --broker-dir /kits
fi

# give DIRECTORY FILE…: puts these files there and removes all others. Each file is complete at any time.
give() {
    to=$1
    shift
    for file in "$@"; do
        cp "$file" "$to/.new"
        mv "$to/.new" "$to/$(basename "$file")"
    done
    for there in "$to"/*; do
        keep=no
        for file in "$@"; do
            [ "$(basename "$there")" = "$(basename "$file")" ] && keep=yes
        done
        [ "$keep" = yes ] || rm -f "$there"
    done
}

# The broker's health check uses Mosquitto's clients, which need the key and the certificate as files.
pem=$(mktemp -d)
python -m zipfile -e "$out/asker-healthcheck.zip" "$pem"
mv "$pem/cert.pem" "$pem/healthcheck.pem"
mv "$pem/key.pem" "$pem/healthcheck.key"

give "$kits/broker" "$out"/broker/* "$pem/healthcheck.pem" "$pem/healthcheck.key"
give "$kits/aggregator" "$out/aggregator.zip" "$out/revoked.json"
give "$kits/edges" "$out"/edge-*.zip
give "$kits/clients" "$out/operator.zip" "$out/asker-asker.zip"
echo "provision: each service has its files"
