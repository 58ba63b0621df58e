"""The models of all messages, by what they are about. `messages` gathers them, and is what other modules import.

===============  ===========================================================
``base``         members' types, and the base classes of all messages
``run``          births, wills, registrations and their answers
``command``      the operator's commands, and the answers
``environment``  where an edge runs
``round``        the opening and the result of a round
``model``        a model's announcement, manifest and chunks
``update``       updates, offers, chunks, failed training, and the answers
``evaluation``   results of evaluations
``observation``  what watchers read;  ``privacy``: what is said of differential privacy
``prediction``   prediction requests and answers;  ``log``: an edge's log, on request
===============  ===========================================================
"""
