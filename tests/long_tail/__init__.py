"""Tests of the long-tail study: how many rows each class has, and what is hidden."""
