"""The command line, a module a group of verbs; each only parses, calls a stage and prints."""
