"""Tests of the paper study: the numbers of its figures, and the script that draws them."""
