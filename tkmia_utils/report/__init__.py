"""Tables, figures and the slider that show a result."""
