"""The batch samplers: one file a method, listed in `impon_hpo.sampling.table`."""
