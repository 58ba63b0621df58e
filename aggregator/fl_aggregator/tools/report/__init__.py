"""Writes a page about one run, or about several in comparison: one HTML file that needs no other file.

==================  ================================================================================
``cli``             ``fl-aggregator report``
``reading``         reads a run directory, complete or not
``page``            the whole page (``style``: its style sheet)
``sections``        the sections about one run (more: ``participation``, ``confusion``, ``edge_values``, ``strategy``,
                    ``similarity``, ``environments``, ``visibility``, ``privacy``, ``survey``)
``comparison``      differences between runs
``sweep``           the runs of a sweep, by setting (``sweep_page``: the page about it)
``figures``         the figures, by matplotlib (``drawing``: as SVG in the page's own colours)
``markup``          HTML in which all text is escaped
``spreadsheet``     the rounds as CSV
==================  ================================================================================
"""
