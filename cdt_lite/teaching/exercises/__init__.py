"""The exercises of the notebooks, one file a notebook (ex00 to ex06), and the machinery that checks answers."""
