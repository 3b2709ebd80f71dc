"""Tests of the speed study: both sides run and do the same work; no figure is judged here."""
