"""What a net learns from → an NPNet: settings, the net that a fit starts from, objectives, the training loop.

Others use ``fit.fit`` with the values of ``settings``, and to show a fit ``history.read_history`` and
``learning_curve.learning_curve``.
"""
