"""The installation as those see it who run it: its workers, its settings, its servers, and how it does."""
