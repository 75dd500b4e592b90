"""What notebooks use: the set-up line, figures with words, exercises and their checks."""
