"""The cells of `chaos.py`: one fault in one phase of one real run each.

``watch`` sees what happens, ``stage`` has the programs, ``phases`` waits for the moment, ``faults`` strike and mend,
``cell`` puts them together and measures.
"""
