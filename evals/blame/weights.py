"""The ranker's weights, as ``python -m benchmarks.attribution --weights`` prints them.

Fitted on the failed conversations of Who&When with a ridge penalty of 2: the features are in
``features.FEATURES``.
"""

from __future__ import annotations

from typing import Final

PLAIN: Final = (
    0.1380,  # place
    0.1020,  # place_squared
    -0.3736,  # is_first
    0.5815,  # is_second
    -0.1042,  # is_third
    -0.4733,  # is_last
    -0.5131,  # is_tool
    -0.5923,  # after_tool
    0.4128,  # error_words
    0.0304,  # after_error
    -0.0230,  # model_after_error
    0.8891,  # has_code
    0.2911,  # length
    0.5147,  # hedges
    0.3870,  # plans
    0.0574,  # concludes
    0.1151,  # new_numbers
    0.3836,  # new_names
    0.0906,  # first_claim
    -0.1408,  # first_of_speaker
    0.0000,  # by_coordinator
    0.0000,  # is_thought
    0.0000,  # is_hand_over
    0.5196,  # new_in_output
    0.4215,  # model_new_in_output
)
COORDINATED: Final = (
    -0.3347,  # place
    -0.2680,  # place_squared
    -0.3542,  # is_first
    -0.1265,  # is_second
    -0.1791,  # is_third
    0.4172,  # is_last
    0.7921,  # is_tool
    -0.1556,  # after_tool
    0.3529,  # error_words
    -0.0010,  # after_error
    0.0446,  # model_after_error
    -0.1056,  # has_code
    0.3321,  # length
    -0.1167,  # hedges
    0.3785,  # plans
    0.4236,  # concludes
    0.1574,  # new_numbers
    0.1775,  # new_names
    -0.0880,  # first_claim
    0.2350,  # first_of_speaker
    -0.5845,  # by_coordinator
    -0.2614,  # is_thought
    -0.2087,  # is_hand_over
    0.1850,  # new_in_output
    -0.2715,  # model_new_in_output
)
