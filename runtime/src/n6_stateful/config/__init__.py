"""`config_spec` and configuration files, as n6 has them (https://n6.readthedocs.io/).

`spec` reads specs, `files` finds and reads the files, `converters` turn text into values, `loading` puts
the three together, and `masking` keeps secrets out of what a person is told.
"""

from n6_stateful.config.files import ConfigFiles, config_files
from n6_stateful.config.loading import ConfigSection, load
from n6_stateful.config.masking import masked_url_text
from n6_stateful.config.spec import section_names

__all__ = ["ConfigFiles", "ConfigSection", "config_files", "load", "masked_url_text", "section_names"]
