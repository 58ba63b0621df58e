"""Which tasks there are, and their options.

=======  ================================
``cli``  the command ``fl-aggregator tasks``
=======  ================================
"""
