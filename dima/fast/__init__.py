"""The imagined step once more, laid out for speed: twins of the parts that a rollout calls most.

A twin holds rearranged copies of a part's weights and gives the part's numbers up to rounding. The parts themselves
stay the text to read and to change; `tests/reference/test_fast.py` holds every twin against its part, and
`engine.imagination=eager` does without them.
"""
