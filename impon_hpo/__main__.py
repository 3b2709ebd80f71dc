"""`python -m impon_hpo` is the command `impon-hpo`."""

from impon_hpo.cli.app import main

main()
