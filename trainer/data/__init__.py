"""The users' files: prompts, embeddings, pairs, images, JSON Lines."""
