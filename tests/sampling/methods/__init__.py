"""Tests of the batch samplers, one file a method."""
