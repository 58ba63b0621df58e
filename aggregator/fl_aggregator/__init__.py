"""The aggregator: ``fl-aggregator``. A room imports only rooms below it.

===============  ================================================================
``cli``          the commands
``server``       runs one federation: the loop that owns the state
``tools``        the commands beside a run: remote, doctor, provision, report, dashboard
``messaging``    the aggregator and the broker
``monitoring``   what people and programs see of a run
``aggregation``  from updates to the next model
``storage``      what a run keeps on disk
``round``        PURE: the state machine of a run
``settings``     what a run is told
===============  ================================================================
"""
