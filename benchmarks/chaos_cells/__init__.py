"""The cells of `chaos.py`: each injects one fault in one phase of a real run.

``watch`` observes the run, ``stage`` holds the programs, ``phases`` says when a phase begins and ends,
``faults`` injects and repairs faults, ``cell`` combines them and measures.
"""
