"""Many connections to an MQTT 5 broker, driven by one thread.

==============  =================================================================
``network``     the connections of a process, which share one thread
``connection``  one connection: goes on trying until it is refused or closed
``events``      the settings of a connection, and what its handler is told
``outbox``      what waits to be sent, in order
``event_loop``  the thread and its timers
``diagnosis``   says in words why a broker cannot be reached
``address``     broker URLs
``stream``      byte streams;  ``websocket``: MQTT over WebSockets
``paho``        the only room that speaks to paho
==============  =================================================================
"""
