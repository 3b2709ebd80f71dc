"""Tests of the wrong-labels study: how many labels are wrong in each world, and which are not."""
