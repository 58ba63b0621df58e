#!/bin/sh
# In a container of compose.yaml: makes accounts and kits in /provision, or changes them as the arguments say
# (revoke 3), and gives to each service, in a volume of its own below /kits, what that service needs and no more.
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

# give DIRECTORY FILE…: these and no others; each is whole at any time.
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

# Mosquitto's clients, with which the broker's health is checked, want files.
pem=$(mktemp -d)
python -m zipfile -e "$out/asker-healthcheck.zip" "$pem"
mv "$pem/cert.pem" "$pem/healthcheck.pem"
mv "$pem/key.pem" "$pem/healthcheck.key"

give "$kits/broker" "$out"/broker/* "$pem/healthcheck.pem" "$pem/healthcheck.key"
give "$kits/aggregator" "$out/aggregator.zip"
give "$kits/edges" "$out"/edge-*.zip
give "$kits/clients" "$out/operator.zip" "$out/asker-asker.zip"
echo "provision: kits are where the services find them"
