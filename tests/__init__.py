"""Tests of the package, in the rooms of the package."""
