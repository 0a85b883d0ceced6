"""The paper's experiments: which images, in which cells, attacked where."""
