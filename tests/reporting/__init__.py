"""Tests of impon_hpo.reporting."""
