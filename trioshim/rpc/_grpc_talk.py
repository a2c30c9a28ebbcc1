"""A stream of questions, each with one answer: what server reflection is, and nothing else of ours.

Rules of this file:

* an answer needs no waiting: a function of bytes gives it;
* questions are short, and few may be unanswered: a peer that asks more is told so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from ..errors import ResourceExhaustedError, ShimError
from ._grpc_wire import take_messages

__all__ = ["Conversation", "Talk"]

Talk = Callable[[bytes], bytes]

_MAX_QUESTION = 16 * 1024  # bytes
_MAX_QUESTIONS = 64  # unanswered


class Conversation:
    """What is between the reader of a connection and the task that answers.

    Attributes:
        heard_all: the peer has said that it asks no more.
        error: how the peer broke a rule; told after the answers to what it asked before.
    """

    def __init__(self, talk: Talk) -> None:
        self.heard_all = False
        self.error: ShimError | None = None
        self._talk = talk
        self._body = bytearray()
        self._questions: deque[bytes] = deque()
        self._stopped = False
        self._news = trio.lowlevel.ParkingLot()

    def hear(self, data: bytes, *, ended: bool = False) -> None:
        """Bytes of questions have come."""
        self.heard_all |= ended
        if self._stopped:
            return
        self._body.extend(data)
        try:
            self._questions.extend(take_messages(self._body, ended=ended, limit=_MAX_QUESTION))
            if len(self._questions) > _MAX_QUESTIONS:
                raise ResourceExhaustedError(f"more than {_MAX_QUESTIONS} messages unanswered")
        except ShimError as error:
            self.error = error
        self._news.unpark_all()
        if ended or self.error:
            self.stop()

    def stop(self) -> None:
        """Hear nothing more; what was asked is answered."""
        self._stopped = True
        self._body.clear()
        self._news.unpark_all()

    async def next_answer(self) -> bytes | None:
        """None: there is nothing more to answer.

        Raises:
            ShimError: the status to answer.
        """
        while not self._questions:
            if self._stopped:
                return None
            await self._news.park()
        return self._talk(self._questions.popleft())
