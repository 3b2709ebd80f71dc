"""Tests of impon_hpo.tuning."""
