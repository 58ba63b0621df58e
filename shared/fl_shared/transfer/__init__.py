"""PURE: models and updates in chunks; the receiver asks for them. No broker, clock or thread.

====================  ===========================================================
``publication``       a model as retained chunks and a manifest
``download``          fetches a model: which topics to read, until it is whole
``assembly``          puts chunks together and checks them
``upload``            an edge's side of an upload: offers, sends what is granted
``upload_scheduler``  the aggregator's side: grants chunks within its memory
====================  ===========================================================
"""
