"""The handlers that come with DJPS, one module per family."""
