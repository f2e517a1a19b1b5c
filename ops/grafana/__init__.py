"""Grafana's dashboards, built in code; `python3 -m ops dashboards` writes them to `dashboards/`."""
