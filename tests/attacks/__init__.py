"""The attack suite: what somebody gone bad tries against a run, who refuses it, and how that is seen.

``villain``   MQTT clients that say what our own programs never would
``stage``     a broker, an aggregator, three honest edges in the middle of a round, and those who attack them
``row``       one line of the table: what is tried, by whom, where it is refused, what is seen of it
``speech``    to speak in the name of others
``reading``   to read or to swallow what is for others
``entry``     to come in at all, or as somebody else
``forms``     messages of one's own that no honest edge would send
``brokers_operator``  what whoever runs the broker can try where it is not trusted
``table``     all rows, in the order of docs/security.md
"""
