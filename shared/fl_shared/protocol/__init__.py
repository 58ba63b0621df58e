"""The protocol: messages, their topics and their bytes (``docs/protocol.md``).

====================  ===========================================================
``messages``          every kind of message, one model each, from ``kinds``
``topics``            every topic, one value type each;  ``home_assistant``: one that is not ours
``channels``          one row for each topic: what is sent there, by whom, to whom, and how
``codec``             converts payloads to messages and back
``envelope``          the members that all the aggregator's messages begin with
``limits``            sizes and times that both sides keep to
``partition_scheme``  how a data set is split into partitions
``abilities``         what edges can do in training besides plain SGD
``task_spec``         a task and its options as one text
``asyncapi``          the AsyncAPI description, generated from the messages
====================  ===========================================================
"""
