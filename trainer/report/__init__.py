"""What a person reads of a comparison: the page, its charts, its words. Others use :func:`report.write_report`, and for
pages of their own :mod:`page` and :mod:`charts`; the markup is in ``templates/``."""
