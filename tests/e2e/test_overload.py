"""What callers of the real server meet when there is too much to do, and when the network loses them."""

import time
from concurrent.futures import ThreadPoolExecutor

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from m2ib_client import Client
from relay import relayed
from wire import explain_request, png

SECONDS = 60


def test_a_call_that_the_network_lost_is_made_again_and_joins_what_is_under_way(server, stub):
    """The SDK's retry policy makes it again by itself; nothing is computed twice."""
    image, text, settings = png(seed=77), "a cat that the network lost", {"steps": 400, "samples": 8, "seed": 5}
    request = explain_request(
        image=pb.Image(encoded=image),
        text=text,
        settings=settings_pb2.Settings(**settings),
        sides=[settings_pb2.SIDE_IMAGE],
    )
    with (
        relayed(server.address) as relay,
        Client(relay.address, timeout=SECONDS) as client,
        ThreadPoolExecutor(1) as aside,
    ):
        answer = aside.submit(client.explain, image, text, model="tiny", sides=["image"], **settings)
        deadline = time.monotonic() + SECONDS
        while relay.bytes_to_server < len(image):
            assert time.monotonic() < deadline
            assert not answer.done(), answer.result()
            time.sleep(0.005)
        events = stub.ExplainStream(pb.ExplainStreamRequest(request=request), timeout=SECONDS)
        assert next(events).progress.step  # the job is under way
        relay.cut()
        explanation = answer.result(timeout=SECONDS)
        assert relay.connections == 2
        *_, last = events
    assert explanation.provenance.shared
    assert explanation.similarity == last.explanation.similarity
