"""Checks the answers of a replay, which cookiecutter.json's own check does not see.

<<cookiecutter|check_answers>>
"""
