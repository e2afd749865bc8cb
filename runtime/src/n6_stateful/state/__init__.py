"""What a collector remembers between its runs: the mixin, the stores, and what may come out of a pickle."""
