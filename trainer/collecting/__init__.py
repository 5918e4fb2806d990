"""Prompts → a noise prompt dataset."""
