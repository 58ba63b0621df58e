"""All that passes between the aggregator and the broker.

================  ===============================================================
``connections``   its two connections: for control, and for updates;  ``outgoing``, ``outlet``
``retained``      what it keeps retained;  ``leftovers``: what earlier runs left
``inbox``         holds what other threads pass to the loop, bounded
``rate_limiter``  drops what exceeds a client's limits, before the inbox
``rate_limits``   PURE: how much a client may send
``router``        decodes messages;  ``reader``: turns them into events, with ``ended_sessions``
``translate``     messages into events, effects into messages;  ``commands``: who is answered
``unsealing``     opens sealed messages;  ``rejections``, ``delays``: counts;  ``masked_answers``
``revoked_kits``  refuses what revoked kits send
``publisher``     status, results, models;  ``watcher_feed``: for watchers;  ``unmask_publisher``;  ``home_assistant``
================  ===============================================================
"""
