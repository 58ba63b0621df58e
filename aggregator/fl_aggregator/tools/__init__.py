"""The commands other than a run itself.

They do not import each other, except that ``doctor`` uses ``remote``.

=============  ==================================================================
``remote``     reads a run over the broker: status, watch, logs, predict, stop
``doctor``     checks whether a broker can support a run
``provision``  accounts, certificates, kits
``report``     runs as one page
``survey``     what a survey has found
``privacy``    what a private run has spent, or would need
``dashboard``  serves the page that shows a run in a browser
=============  ==================================================================
"""
