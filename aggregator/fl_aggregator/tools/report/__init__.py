"""A page about a run, or one that compares several: one HTML file with everything in it.

==================  ================================================================================
``cli``             ``fl-aggregator report``
``reading``         a run as its directory tells it, whatever state that is in
``page``            the whole page (``style``: what it looks like)
``sections``        what it says: of one run, and of several beside each other
``comparison``      what runs have in common, and where they differ
``figures``         its drawings, by matplotlib (``drawing``: as SVG in the page's own colours)
``markup``          HTML that cannot be broken out of
``spreadsheet``     the same as CSV
==================  ================================================================================
"""
