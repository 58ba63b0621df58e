"""The aggregator and the broker.

================  ===============================================================
``connections``   its two connections: for control, and for updates
``inbox``         what other threads hand to the loop, bounded
``rate_limiter``  drops what exceeds a client's limits, before the inbox
``rate_limits``   PURE: how much a client may send
``router``        decodes what has come, and turns it into events
``translate``     messages into events, effects into messages
``unsealing``     opens sealed messages;  ``rejections``: counts what was refused
``publisher``     status, results, models;  ``watcher_feed``: what only observers read
================  ===============================================================
"""
