"""Kinesis data streams, read with the real MultiLangDaemon of the Kinesis Client Library.

    stream ──▶ daemon (Java, one per stream) ──▶ courier (one per shard) ──▶ server ──▶ submit(Delivery)
                                                    ▲  checkpoint                │
                                                    └──────── acknowledged ◀─────┘ settled

`courier` is what the daemon starts for each shard; `server` is the agent's end of the courier's socket; `daemon` keeps
one Java process alive; `credentials` gives it the account's keys; `stream` knows what a stream is and
whether it is still there; `java` finds Java and the jars; `input` ties them together, a daemon per enabled stream.
"""
