"""Tests, and what the driver's --self_check runs."""
