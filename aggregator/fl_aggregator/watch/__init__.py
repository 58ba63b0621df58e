"""Watching a run, from within or from afar.

=============  ===================================================================================
``picture``    what can be seen of a run at one moment: of the aggregator's own state, or of messages
``drawing``    a picture for a terminal
``lines``      the same as lines of text, for what is no terminal
``follower``   hears what lies at the broker for watchers, and makes pictures of it
``sight``      a picture, and whether the aggregator is there
``live``       ``fl-aggregator watch``
``cli``        the commands ``status`` and ``watch``
=============  ===================================================================================

"""
