"""One training run. Needs torch, torchvision and the batch samplers; knows no trial."""
