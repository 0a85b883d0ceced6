"""The course around the notebooks: exercises that answer, and what a teacher needs for them."""
