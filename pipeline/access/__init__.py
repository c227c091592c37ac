"""What reads the finished catalog: the Python API, and what the commands and the service share with it."""
