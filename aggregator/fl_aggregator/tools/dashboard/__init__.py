"""The dashboard: a static page that connects to the broker by itself, over MQTT WebSockets.

==============  ==================================================================================
``static/``     the page: HTML, styles, plain scripts, and the two libraries in ``vendor/``
``address``     where a browser finds the broker: ``ws://[user@]host[:port][/path]``
``server``      serves the page and says to it where the broker is; nothing else
``cli``         ``fl-aggregator dashboard``
==============  ==================================================================================

Mosquitto may serve ``static/`` as it is (``http_dir``). It sends no Content-Type then, and browsers run modules
only with one: so the page's files are ordinary scripts, each of which defines one name.
"""
