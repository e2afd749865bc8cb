"""The documentation: pages in Markdown, and those that are made from the code."""
