#!/bin/sh
# Starts fl-edge in a container, and decides which edges it is. Any argument, FL_ID or FL_KIT says so itself.
#
#   FL_KITS=DIR   one edge: the first kit (*.zip) in DIR that no other container has taken
#   otherwise     FL_FLEET edges (20): replica k has the ids k × FL_FLEET and following, k is the first that is free
#
# Replicas share the working directory, a volume: whoever holds the lock on a slot there has it, for as long as he lives.
# Who comes after him has his state, too, and is the same device to the aggregator.
set -eu

# claim NAME: whether nobody has it; fl-edge inherits the lock on descriptor 9. Never on a kit itself, which may be
# replaced by a newer one while it is in use.
claim() {
    mkdir -p slots
    exec 9>>"slots/$1"
    flock --nonblock 9
}

if [ $# -gt 0 ] || [ -n "${FL_ID:-}" ] || [ -n "${FL_KIT:-}" ]; then
    exec fl-edge "$@"
fi

if [ -n "${FL_KITS:-}" ]; then
    for kit in "$FL_KITS"/*.zip; do
        name=$(basename "$kit" .zip)
        if [ -e "$kit" ] && claim "$name"; then
            export FL_KIT="$kit" FL_STATE_DIR="state/$name"
            echo "fl-edge: using $kit" >&2
            unset FL_KITS # fl-edge would take it for a misspelt FL_KIT
            exec fl-edge
        fi
    done
    echo "fl-edge: no kit in $FL_KITS is free: expected one for each replica" >&2
    exit 2
fi

fleet=${FL_FLEET:-20}
case $fleet in
    *[!0-9]* | 0* | ?????*)
        echo "fl-edge: FL_FLEET=$fleet: expected 1 to 9999 edges per container" >&2
        exit 2
        ;;
esac
slot=0
while ! claim "$slot"; do
    slot=$((slot + 1))
done
first=$((slot * fleet))
if [ "$fleet" -eq 1 ]; then
    export FL_ID="$first" FL_STATE_DIR="state/$first"
else
    export FL_ID="$first-$((first + fleet - 1))" FL_STATE_DIR=state
fi
echo "fl-edge: running as edge $FL_ID" >&2
exec fl-edge
