"""What a person reads of a comparison: the page, its charts, its words; the markup is in ``templates/``.

``report.write_report`` puts the sections together: ``summary``, ``tables``, ``plots``, ``pictures``, ``cost``,
``diagnostics``, ``provenance``. What charts look like stands in ``charts``, how one comparison is shown in
``comparison``, what it means in ``conclusions``. For pages of their own others use ``page`` and ``data_uri``.
"""
