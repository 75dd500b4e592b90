"""The exercises of the notebooks, one file a notebook (ex00 to ex09), and the machinery that checks answers."""
