"""How often what runs take is weighed."""

from __future__ import annotations

from stepstream.stream.held import WEIGH_EVERY_US, WEIGH_SELDOM_US, weigh_again_us


def test_what_nears_its_bound_is_weighed_more_often() -> None:
    """With very many runs a weighing is a pause: an empty worker needs few of them, a full one all."""
    waits_us = [weigh_again_us(held, 1_000) for held in (0, 500, 900, 1_000, 5_000)]
    assert waits_us == sorted(waits_us, reverse=True)
    assert waits_us[0] == WEIGH_SELDOM_US
    assert waits_us[-2:] == [WEIGH_EVERY_US, WEIGH_EVERY_US]
