"""The users' files: prompts, embeddings, published pairs, images, JSON Lines, TOML.

Every reader refuses what it cannot read in one sentence. Others use the functions of each file.
"""
