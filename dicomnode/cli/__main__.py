"""`python -m dicomnode.cli`: the same as the console script."""

from dicomnode.cli.main import main

main()
