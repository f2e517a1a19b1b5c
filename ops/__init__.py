"""Operating DJPS: `python3 -m ops` brings it up and down, tests it, and keeps its lock files."""
