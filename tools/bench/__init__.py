"""Measure launching and training against peers, as ratios: ``make bench``.

Absolute times say more about a machine than about a program. So everything is measured in
interleaved rounds, and judged by the ratio to a peer of the same round: whatever else the machine
does, it does to both. The bars are in ``verdicts``; a missed one is printed like a met one.
"""
