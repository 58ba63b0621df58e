"""What the operating system gives, and text for people.

=================  ===========================================================
``backoff``        how long to wait before the next attempt
``files``          files that are written whole, and secret files
``flood_control``  bounds on what a flood of messages costs
``child_process``  child processes that end with their parent
``shared_memory``  large vectors that go to another process without a copy
``malloc``         how the C library keeps freed memory
``mosquitto``      starts a Mosquitto broker as a child
``token_bucket``   limits a rate
``text``           sizes, durations and names for people; strangers' text on one line
``varint``         numbers of variable length
=================  ===========================================================
"""
