#!/bin/sh
# NATS JetStream stores each record, as it is. The publisher waits for the acknowledgement of each; while
# it is slow, tcpshift's queue grows, and what does not fit is counted as lost. A record that the client
# cannot publish, because the server is away, is lost and not counted: the client reports it and goes on.
# nats is natscli 0.5.1.
#
#     nats-server -a 127.0.0.1 -js -sd /var/lib/nats
#     sh nats.sh

nats stream add tcpshift --subjects 'tcpshift.>' --storage file --defaults --max-bytes 1GiB \
    >/dev/null 2>&1 || nats stream info tcpshift >/dev/null || exit 1

tcpshift --output '-?host=true&only=connection,alert&queue=64MiB' |
    nats publish tcpshift.records --jetstream --send-on newline --no-templates --quiet
