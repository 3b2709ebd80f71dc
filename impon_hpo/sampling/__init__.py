"""Which rows next: the batch samplers. Needs torch, knows no image, no model class and no trial."""
