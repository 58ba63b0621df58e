"""The wire: what is said, on which topics, in which bytes (``docs/protocol.md``).

====================  ===========================================================
``messages``          every kind of message, one model each, from ``kinds``
``topics``            every topic, one value type each
``channels``          one row for each topic: what is sent there, by whom, to whom, and how
``codec``             bytes of a payload to a message, and back
``envelope``          the head of the aggregator's messages
``limits``            sizes that both sides keep to
``partition_scheme``  how a data set is divided among edges
``asyncapi``          the AsyncAPI description, made from the messages
====================  ===========================================================
"""
