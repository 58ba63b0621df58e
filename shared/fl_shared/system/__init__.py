"""Services of the operating system, and text for people.

=================  ===========================================================
``files``          files that are complete or absent, and secret ones;  ``own_directory``: whose they are
``file_lock``      an exclusive lock that ends with its process;  ``flood_control``: limits its cost
``child_process``  child processes that end with their parent
``shared_memory``  large vectors, shared by processes;  ``malloc``: keeps freed memory
``mosquitto``      starts a Mosquitto broker as a child;  ``service``: tells systemd how a service is
``file_limit``     the limit of open files;  ``bounded_server``: bounded connections;  ``entry_points``: plugins
``token_bucket``   limits the rate of events;  ``backoff``: growing pauses
``text``           sizes, durations and names for people; untrusted text on one line;  ``reasons``: each once
``validation``     errors of validation as one line;  ``invocation``: commands to paste
``varint``         numbers in few bytes;  ``base64url``: bytes as text
=================  ===========================================================
"""
