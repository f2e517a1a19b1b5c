"""`ops load`: k6 against a running system, with thresholds that fail the run."""
