"""What a model costs, and where its predictions go wrong."""
