"""One attempt as a handler sees it."""
