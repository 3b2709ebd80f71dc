"""Tests of impon_hpo.training."""
