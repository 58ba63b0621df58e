"""Parts that call a part of somebody, and check what it returns and changes. `testing` tries strategies of them.

They take its place in a strategy. Each raises ``AssertionError`` in one sentence: the part and its method, what came,
and what was expected.
"""
