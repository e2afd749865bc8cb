"""<<cookiecutter.source_provider>>.<<cookiecutter.source_channel>>: a stateful n6 collector."""
