"""The users' files: prompts, embeddings, pairs, images, JSON Lines, TOML.

Every reader refuses what it cannot read in one sentence. Others use the functions of each file. Which pairs a net is
fitted on says ``pairs``, and ``batches`` makes them what the net sees.
"""
