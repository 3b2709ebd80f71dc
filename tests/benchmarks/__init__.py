"""Tests of the benchmarks: both sides run and do the same work; no figure is judged here."""
