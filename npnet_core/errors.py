"""The one exception for what a user can put right."""


class InputError(ValueError):
    """Wrong input. The message is one sentence: what came, what was expected, what to do."""
