"""Logs of runs, and the tool that turns a log into tables and plots."""
