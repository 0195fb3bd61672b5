#!/bin/sh
# Announce the service while akashd is ready; run as a service beside bird. READY, BIRDC and PAUSE may
# be set in the environment.
READY=${READY:-http://127.0.0.1:9100/readyz}
BIRDC=${BIRDC:-birdc}
PAUSE=${PAUSE:-1}
said=""

tell() {
    [ "$said" = "$1" ] || { "$BIRDC" "$1" service && said=$1; }
}

trap '"$BIRDC" disable service; exit 0' TERM INT
while :; do
    if curl -sf -m 1 -o /dev/null "$READY"; then tell enable; else tell disable; fi
    sleep "$PAUSE"
done
