"""PURE: transfers models and updates in chunks that the receiver asks for; no broker, clock or thread.

====================  ===========================================================
``publication``       a model as a manifest and retained chunks
``download``          fetches a model: which topics to read until it is complete
``assembly``          assembles the chunks of a model and hashes them
``upload``            an edge's side of an upload: offers, sends what is granted
``upload_scheduler``  the aggregator's side: grants chunks within its memory
``chunk_pace``        how fast chunks arrive, for receivers on slow links
====================  ===========================================================
"""
