"""The commands ``fl-aggregator privacy DIR`` and ``fl-aggregator privacy plan``.

============  ===================================================================
``ledger``    what a run has spent, from its journal alone
``planning``  the noise that a run would need, before anybody trains
============  ===================================================================
"""
