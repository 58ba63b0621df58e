"""The dashboard: a static page that connects to the broker by itself, over MQTT WebSockets.

==============  ==================================================================================
``static/``     the page: HTML, styles, plain scripts, the two libraries in ``vendor/``, and in ``join/`` the edge
                for browsers, which ``examples/node-edge`` makes
``address``     the broker's address for browsers: ``ws://[user@]host[:port][/path]``
``server``      serves the page and tells it the broker's address; nothing else
``cli``         ``fl-aggregator dashboard``
==============  ==================================================================================

Mosquitto can serve ``static/`` unchanged (``http_dir``). It then sends no Content-Type, without which
browsers do not run modules. The page's files are therefore ordinary scripts, each of which defines one name.
"""
