"""What a person reads of a comparison: the page, its charts, its words."""
