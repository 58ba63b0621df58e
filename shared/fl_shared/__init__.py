"""What the aggregator and the edges must agree on: the wire.

======================  ==============================================================================
``messages``            every message of the protocol, one model a kind
``topics``              every topic, built and parsed as values
``codec``               bytes ↔ message: msgpack and JSON, with size caps
``asyncapi``            the protocol as an AsyncAPI document
``tensors``             named arrays ↔ one flat vector and its manifest
``publication``         pure: a model as the retained messages that lie at the broker
``transfer``            pure: and back, from what has come of them
``assembly``            pure: chunks, in whatever order, to one buffer and its digest
``upload``              pure: a finished update as messages, whole or cut
``intake``              pure: which chunks of offered updates may be sent now
``rates``               pure: how much of something may come in a time
``plain``               words of others, for a log or a terminal
``schemes``             how a data set may be parted
``mqtt``                many connections on one thread; the only importer of paho
``connection``          what a connection is told, and what it tells
``reconnection``,
``outbox``,
``network_thread``      what connections are made of
``broker_url``          ``mqtt://…`` and its like → address
``reach``               how to reach the broker: address, account, TLS, kit, in one value
``tls``                 whom to trust as the broker, and what to show it
``diagnosis``           why there is no connection, and whether to try again
``kit``                 the file with all that an account needs: where, who, keys
``signatures``          the aggregator's, on its messages and on the keys of accounts
``sealing``, ``hpke``   messages for the aggregator's eyes only
``mosquitto``           a Mosquitto of our own, and its configuration
``memory_pool``         freed memory that is kept for the next large message
``files``               files that are whole or not there
``leash``               children that end with their parent, however it ends
``options``             what the command lines of both programs have in common
``errors``              the user's mistakes and failed runs
======================  ==============================================================================
"""
