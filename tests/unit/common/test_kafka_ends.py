"""Asking for the ends of a partition while its leader is being chosen."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stepstream.common.kafka import PASSING, ends_of


class Answers(Consumer):
    """A consumer that answers a question about ends with each of these errors in turn, and then
    with the ends.
    """

    def __init__(self, *codes: int) -> None:
        super().__init__({"bootstrap.servers": "127.0.0.1:1", "group.id": "ends", "log_level": 0})
        self.codes = list(codes)

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return 3, 7


@pytest.mark.parametrize("code", sorted(PASSING))
def test_a_leader_that_is_being_chosen_is_waited_for(code: int) -> None:
    assert ends_of(Answers(code, code), TopicPartition("steps", 0)) == (3, 7)


def test_what_does_not_pass_is_raised_at_once() -> None:
    client = Answers(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException, match="authoriz"):
        ends_of(client, TopicPartition("steps", 0))
    assert client.codes == []
