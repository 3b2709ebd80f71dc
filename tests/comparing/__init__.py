"""Tests of the comparing room."""
