"""Does golden noise help? Pictures of a comparison, their scores, and statistics on them.

Others use ``evaluate.evaluate`` with the ``Setting``s of ``sampling_settings`` and methods by the names of
``methods.NAMES``, and turn what it found into ``results.summarise``.
"""
