"""Every pair of answers, in few projects."""

from __future__ import annotations

from itertools import combinations, product

# Every value of every question that has a bearing on what is generated.
VALUES = {
    "collector_name": ["my_feed", "urlhaus2_collector", "abusechthreatfoxrecentioc_feed"],
    "shape": ["download", "rows", "items", "pages", "list", "email"],
    "url": ["https://feed.example/new.csv", "https://feed.example/a%20b/'$(x)';#c?q=%3C&d=!"],
    "download": ["fill in", "http"],
    "scheduler": ["cron", "systemd", "kubernetes", "none"],
    "runtime_source": ["vendored", "index", "git"],
    "_raw_type": ["", "file"],
    "license": ["none", "MIT", "BSD-3-Clause"],
    "_author": ["", 'Zoë "O\'Neil" \\ <CSIRT> {{ %(x)s $(x) <<y>>'],
}


def possible(answers: dict[str, str]) -> bool:
    """Whether the template takes these answers together: a mail is downloaded and started by nothing."""
    return answers["shape"] != "email" or (
        answers["download"] == "fill in" and answers["scheduler"] in ("cron", "none")
    )


def _pairs(answers: tuple[str, ...]) -> set[tuple[tuple[int, str], ...]]:
    return set(combinations(enumerate(answers), 2))


def pairwise() -> list[dict[str, str]]:
    """Few sets of answers such that every pair of values of two questions is in one of them."""
    every = [each for each in product(*VALUES.values()) if possible(dict(zip(VALUES, each, strict=True)))]
    missing = set().union(*map(_pairs, every))
    chosen = []
    while missing:
        best = max(every, key=lambda answers: len(_pairs(answers) & missing))
        missing -= _pairs(best)
        chosen.append(dict(zip(VALUES, best, strict=True)))
    return chosen
