from __future__ import annotations

import threading
import time

from mdpose_edge.stream.channel import Channel


def test_items_come_in_order_and_end_with_the_channel() -> None:
    channel: Channel[int] = Channel(2)
    thread = threading.Thread(target=lambda: [channel.put(i) for i in range(100)] and channel.close())
    thread.start()
    assert list(channel) == list(range(100))
    thread.join()
    assert channel.is_over


def test_a_full_channel_holds_up_who_puts() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    done = threading.Event()
    threading.Thread(target=lambda: channel.put(1) and done.set(), daemon=True).start()
    assert not done.wait(0.05)
    assert channel.get() == 0
    assert done.wait(5)


def test_what_is_there_outlives_closing_but_not_cancelling() -> None:
    for end, left in (("close", [1, 2]), ("cancel", [])):
        channel: Channel[int] = Channel(3)
        channel.put(1)
        channel.put(2)
        getattr(channel, end)()
        assert channel.put(3) is False
        assert list(channel) == left


def test_closing_wakes_everybody() -> None:
    full: Channel[int] = Channel(1)
    full.put(0)
    empty: Channel[int] = Channel(1)
    answers: list[object] = []
    waiting = (lambda: full.put(1), lambda: empty.get(), lambda: empty.wait_wanted() or "wanted")
    threads = [threading.Thread(target=lambda call=call: answers.append(call()), daemon=True) for call in waiting]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    full.close()
    empty.close()
    for thread in threads:
        thread.join(5)
    assert sorted(map(str, answers)) == ["False", "None", "wanted"]


def test_get_gives_up_after_its_time() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.get(0.01) is None
    assert not channel.is_over


def test_wanted_is_when_somebody_waits() -> None:
    channel: Channel[int] = Channel(1)
    wanted = threading.Event()
    threading.Thread(target=lambda: channel.wait_wanted() or wanted.set(), daemon=True).start()
    assert not wanted.wait(0.05)
    threading.Thread(target=channel.get, daemon=True).start()
    assert wanted.wait(5)
    channel.close()
