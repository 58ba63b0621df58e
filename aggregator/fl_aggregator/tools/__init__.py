"""The commands beside a run; they do not know each other.

=============  ==================================================================
``remote``     reads a run over the broker: status, watch, predict, stop
``doctor``     checks whether a broker can support a run
``provision``  accounts, certificates, kits
``report``     runs as one page
``dashboard``  serves the page that shows a run in a browser
=============  ==================================================================
"""
