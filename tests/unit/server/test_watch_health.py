"""Health is told to whoever asks and to everybody who watches, and nobody who watches holds it up."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from m2ib_server.watch import HealthBoard, HealthServicer
from m2ib_server.watch.health import MAX_NAME_CHARACTERS, MAX_WATCHERS
from raw_call import stalled_call

SECONDS = 60
NAME = "m2ib.v1.Model/tiny"


@asynccontextmanager
async def told(board):
    """Serve a board's health; yield its address and a stub."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(board), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield address, health_pb2_grpc.HealthStub(channel)
    finally:
        await server.stop(None)


async def next_of(watching):
    response = await asyncio.wait_for(watching.read(), SECONDS)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def watch(stub, name=""):
    return stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS)


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - it is made true by the server's own tasks
            await asyncio.sleep(0.005)


async def test_who_watches_is_told_of_each_change_and_of_nothing_else():
    board = HealthBoard()
    async with told(board) as (_, stub):
        watching = watch(stub, NAME)
        assert await next_of(watching) == "SERVICE_UNKNOWN"
        board.show({"": True})
        board.show({"": True, NAME: True})
        assert await next_of(watching) == "SERVING"
        board.show({"": True, NAME: True})
        board.show({"": True})
        assert await next_of(watching) == "NOT_SERVING"


async def test_who_leaves_takes_no_other_watcher_along():
    board = HealthBoard()
    async with told(board) as (_, stub):
        leaving, staying = watch(stub), watch(stub)
        assert [await next_of(each) for each in (leaving, staying)] == ["NOT_SERVING"] * 2
        leaving.cancel()
        await until(lambda: board.watchers == 1)
        board.show({"": True})
        assert await next_of(staying) == "SERVING"


async def test_who_watches_and_reads_nothing_holds_up_neither_the_board_nor_others():
    board = HealthBoard()
    async with told(board) as (address, stub):
        with stalled_call(address, "/grpc.health.v1.Health/Watch"):
            await until(lambda: board.watchers == 1)
            watching = watch(stub)
            assert await next_of(watching) == "NOT_SERVING"
            board.show({"": True})
            assert await next_of(watching) == "SERVING"
            board.close()
            assert await next_of(watching) == "NOT_SERVING"


async def test_nothing_serves_once_the_board_is_closed():
    board = HealthBoard()
    board.show({"": True, NAME: True})
    assert board.is_serving()
    assert board.is_serving("tiny")
    board.close()
    board.show({"": True, NAME: True, "another": True})
    assert not board.is_serving()
    async with told(board) as (_, stub):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=NAME), timeout=SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="another"), timeout=SECONDS)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_name_that_is_none_is_not_kept():
    async with told(HealthBoard()) as (_, stub):
        with pytest.raises(grpc.RpcError) as caught:
            await watch(stub, "x" * (MAX_NAME_CHARACTERS + 1)).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "256 characters" in caught.value.details()


async def test_there_are_so_many_watchers_and_no_more():
    board = HealthBoard()
    crowd = [board.watched("") for _ in range(MAX_WATCHERS)]
    for each in crowd:
        each.__enter__()
    async with told(board) as (_, stub):
        with pytest.raises(grpc.RpcError) as caught:
            await watch(stub).read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        crowd.pop().__exit__(None, None, None)
        assert await next_of(watch(stub)) == "NOT_SERVING"
