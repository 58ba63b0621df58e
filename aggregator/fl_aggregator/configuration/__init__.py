"""What a run is told at its start.

==============  ======================================================
``settings``    the options of a run, as fields
``checks``      what they must keep together
``values``      those that are more than a number or a name
``fold_width``  the bits in which a round is added up
``regions``     what a run and its regional aggregators know of each other
``masking``     runs whose updates are masked;  ``privacy``: private runs;  ``survey``: surveys
``looking``     runs that look at a served model
``option``      how the command line offers a setting
``pace``        how deadlines and over-selection follow from earlier rounds
``staleness``   how much an update counts that began from an old version
==============  ======================================================
"""
