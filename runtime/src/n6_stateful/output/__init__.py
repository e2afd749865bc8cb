"""Where messages go: the protocol (`base`), the choice (`choice`), and one module an output."""
