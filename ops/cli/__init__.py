"""The command line `python3 -m ops`: its words, its help, and what each command does."""
