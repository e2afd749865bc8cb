# -*- coding: utf-8 -*-
"""Makes the pickles in this directory, under Python 2.7, as n6 2.x would: python2.7 make.py"""

# fmt: off
import cPickle
import collections
import datetime
import decimal
import fractions
import os
import uuid

STATES = {
    "plain": {
        "when": datetime.datetime(2015, 10, 21, 7, 28, 0, 123456),
        "day": datetime.date(2015, 10, 21),
        "ids": set([1, 2, 2**70]),
        "frozen": frozenset(["a"]),
        "text": "zażółć",
        "unicode": u"zażółć",
        "number": 2**70,
        "decimal": decimal.Decimal("1.50"),
        "list": ["a", ("b", None, True, 1.5)],
        "ż": 1,
    },
    "containers": {
        "ordered": collections.OrderedDict([("ż", 1), ("a", ["ż"])]),
        "counter": collections.Counter(["ż", "ż", "a"]),
        "default": collections.defaultdict(list, {"ż": ["ż"]}),
        "deque": collections.deque(["ż", u"ż"], maxlen=3),
        "bytearray": bytearray("\xff\x00"),
        "fraction": fractions.Fraction(1, 3),
        "uuid": uuid.UUID(int=5),
        "delta": datetime.timedelta(1, 2, 3),
        "time": datetime.time(1, 2, 3),
        "complex": 1 + 2j,
    },
    "latin2": u"zażółć".encode("iso-8859-2"),
}

for name, state in STATES.items():
    for protocol in (0, 1, 2):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "%s-%d.pickle" % (name, protocol))
        with open(path, "wb") as file:
            cPickle.dump(state, file, protocol)
