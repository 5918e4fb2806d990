"""Prompts → a noise prompt dataset.

Others use ``collect.collect`` with a ``recipe.Recipe``, the ``keys`` and the ``manifest`` of a dataset, ``scorers`` by
their names, and how noise is re-denoised, ``redenoising.Redenoising``.
"""
