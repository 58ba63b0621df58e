"""The aggregator: ``fl-aggregator``. Each package imports only packages that are below it in this table.

=================  ================================================================
``cli``            the commands
``server``         runs one federation: the loop that owns the state
``tools``          the other commands: remote, doctor, provision, report, dashboard
``messaging``      all that passes between the aggregator and the broker
``monitoring``     what people and programs see of a run
``aggregation``    makes the next model from updates
``storage``        what a run keeps on disk
``round``          PURE: the state machine of a run
``configuration``  the settings of a run
=================  ================================================================
"""
