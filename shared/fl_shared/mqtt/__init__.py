"""Many connections to an MQTT 5 broker, driven by one thread.

==============  =================================================================
``network``     the connections of a process, which share one thread
``connection``  one connection, which keeps trying until it is refused or closed
``events``      the settings of a connection, and the events for its handler
``outbox``      the queue of packets to be sent;  ``refused_publishes``: those that the broker refuses
``event_loop``  the thread and its timers
``diagnosis``   explains why a broker cannot be reached
``address``     broker URLs
``stream``      byte streams;  ``websocket``: MQTT over WebSockets
``paho``        the only package that imports paho
==============  =================================================================
"""
