"""Does golden noise help? Pictures of a comparison, their scores, and statistics on them."""
