"""The stack on one machine: its virtual environment, its servers, its processes and their supervisor."""
