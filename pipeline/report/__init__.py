"""What a run is summed up in: the terminal summary and the HTML page with its figures."""
