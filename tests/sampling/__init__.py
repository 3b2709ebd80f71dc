"""Tests of impon_hpo.sampling."""
