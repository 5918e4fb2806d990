"""What a person reads of a comparison: the page, its charts, its words; the markup is in ``templates/``.

Others use ``report.write_report``, and for pages of their own ``page`` and ``charts``.
"""
