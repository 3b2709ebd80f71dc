"""Tests of what a person sees in a real browser; `pytest -m browser` runs them."""
