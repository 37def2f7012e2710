"""Triton's Python client, as it comes from PyPI, against our server: every flow, each one's result as JSON.

A program of its own: its stubs and ours clash in one process. Run as `python triton_flows.py ADDRESS IMAGE TEXT`.
"""

import asyncio
import base64
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

ADDRESS, IMAGE, TEXT = sys.argv[1], Path(sys.argv[2]).read_bytes(), sys.argv[3]
MODEL, SECONDS = "tiny", 60
SETTINGS = {"m2ib_steps": 3, "m2ib_samples": 2, "m2ib_seed": 7, "m2ib_beta": 0.2, "m2ib_fit": "stretch"}
LONG = {"m2ib_steps": 1000, "m2ib_samples": 200}
FLOWS = {}


def flow(function):
    FLOWS[function.__name__] = function
    return function


def inputs():
    made = [triton.InferInput(name, [1], "BYTES") for name in ("image", "text")]
    made[0].set_data_from_numpy(np.array([IMAGE], dtype=np.object_))
    made[1].set_data_from_numpy(np.array([TEXT.encode()], dtype=np.object_))
    return made


def outputs(*names):
    return [triton.InferRequestedOutput(name) for name in names]


def plain(result):
    """Return an answer as JSON has it."""
    response, values = result.get_response(), {}
    for output in response.outputs:
        array = result.as_numpy(output.name)
        strings = output.datatype == "BYTES"
        values[output.name] = [each.decode("utf-8", "replace") for each in array] if strings else array.tolist()
        assert list(array.shape) == list(output.shape)
    return {
        "id": response.id,
        "model": [response.model_name, response.model_version],
        "order": [output.name for output in response.outputs],
        "raw": [len(raw) for raw in response.raw_output_contents],
        "typed": any(output.HasField("contents") for output in response.outputs),
        "values": values,
        "parameters": {
            name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in response.parameters.items()
        },
    }


def fault(error):
    return {"status": error.status(), "message": error.message()}


def refused(**changes):
    """Return how a request is refused."""
    asked = {"model_name": MODEL, "inputs": inputs(), "client_timeout": SECONDS, **changes}
    with triton.InferenceServerClient(ADDRESS) as client:
        try:
            client.infer(**asked)
        except InferenceServerException as error:
            return fault(error)
    return None


@flow
def infer():
    with triton.InferenceServerClient(ADDRESS) as client:
        wanted = outputs("similarity", "map", "token_scores", "grid", "tokens")
        result = client.infer(
            MODEL, inputs(), outputs=wanted, request_id="mine", parameters=SETTINGS, client_timeout=SECONDS
        )
        return plain(result)


@flow
def infer_without_naming_outputs():
    with triton.InferenceServerClient(ADDRESS) as client:
        return plain(client.infer(MODEL, inputs(), parameters=SETTINGS, client_timeout=SECONDS))


@flow
def original_map_and_pictures():
    with triton.InferenceServerClient(ADDRESS) as client:
        wanted = outputs("original_map", "overlay", "provenance")
        result = client.infer(MODEL, inputs(), outputs=wanted, parameters=SETTINGS, client_timeout=SECONDS)
        return {
            "shape": list(result.as_numpy("original_map").shape),
            "overlay": result.as_numpy("overlay")[0][:8].hex(),
            "provenance": json.loads(result.as_numpy("provenance")[0]),
        }


@flow
def async_infer():
    done, seen = threading.Event(), []

    def callback(result, error):
        seen.append(plain(result) if error is None else fault(error))
        done.set()

    with triton.InferenceServerClient(ADDRESS) as client:
        client.async_infer(MODEL, inputs(), callback, parameters=SETTINGS, client_timeout=SECONDS)
        assert done.wait(SECONDS)
    return seen[0]


@flow
def aio_infer():
    async def run():
        async with triton_aio.InferenceServerClient(ADDRESS) as client:
            return plain(await client.infer(MODEL, inputs(), parameters=SETTINGS, client_timeout=SECONDS))

    return asyncio.run(run())


def streamed(requests, *, headers=None, until):
    """Send requests through one stream and return what comes back until `until` says that it is all."""
    seen, done = [], threading.Event()

    def callback(result, error):
        seen.append(plain(result) if error is None else fault(error))
        if until(seen):
            done.set()

    with triton.InferenceServerClient(ADDRESS) as client:
        client.start_stream(callback, headers=headers)
        for request in requests:
            client.async_stream_infer(MODEL, **{"inputs": inputs(), **request})
        assert done.wait(SECONDS), seen
        client.stop_stream()
    return seen


def finals(count):
    return lambda seen: sum("status" in each or each["parameters"]["triton_final_response"] for each in seen) == count


@flow
def stream_with_progress():
    parameters = {**SETTINGS, "m2ib_progress": True, "m2ib_partial_grids": True}
    request = {"parameters": parameters, "request_id": "watched", "enable_empty_final_response": True}
    return streamed([request], until=finals(1))


@flow
def stream_of_several():
    requests = [
        {"parameters": SETTINGS, "request_id": "first"},
        {"parameters": {**SETTINGS, "m2ib_steps": 0}, "request_id": "wrong"},
        {"parameters": SETTINGS, "request_id": "last"},
    ]
    return streamed(requests, until=finals(3))


@flow
def stream_that_errors_end():
    wrong = {"parameters": {"m2ib_steps": 0}}
    return streamed([wrong], headers={"triton_grpc_error": "true"}, until=finals(1))


@flow
def aio_stream():
    async def run():
        async def requests():
            yield {"model_name": MODEL, "inputs": inputs(), "parameters": SETTINGS, "request_id": "one"}

        async with triton_aio.InferenceServerClient(ADDRESS) as client:
            return [plain(result) async for result, error in client.stream_infer(requests()) if error is None]

    return asyncio.run(run())


@flow
def health_and_metadata():
    with triton.InferenceServerClient(ADDRESS) as client:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model": client.is_model_ready(MODEL),
            "version": client.is_model_ready(MODEL, "1"),
            "other version": client.is_model_ready(MODEL, "9"),
            "unknown": client.is_model_ready("zebrafinch"),
            "server": client.get_server_metadata(as_json=True),
            "metadata": client.get_model_metadata(MODEL, as_json=True),
            "config": client.get_model_config(MODEL, as_json=True),
            "index": client.get_model_repository_index(as_json=True),
        }


@flow
def statistics():
    with triton.InferenceServerClient(ADDRESS) as client:
        before = client.get_inference_statistics(MODEL, as_json=True)
        client.infer(MODEL, inputs(), parameters={**SETTINGS, "m2ib_seed": 8}, client_timeout=SECONDS)
        refused(parameters={"m2ib_steps": 0})
        after = client.get_inference_statistics(MODEL, as_json=True)
        everything = client.get_inference_statistics(as_json=True)
    return {"before": before, "after": after, "models": len(everything["model_stats"])}


@flow
def explicit_contents():
    """As Triton's grpc_explicit_byte_content_client does: no raw contents, a bare stub."""
    import grpc  # noqa: PLC0415
    from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: PLC0415

    request = service_pb2.ModelInferRequest(model_name=MODEL, id="typed")
    for name, value in (("image", IMAGE), ("text", TEXT.encode())):
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(value)
    for name, value in SETTINGS.items():
        kind = {int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    with grpc.insecure_channel(ADDRESS) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=SECONDS)
    return plain(triton.InferResult(response))


@flow
def custom_arguments():
    arguments = [("grpc.primary_user_agent", "mine"), ("grpc.keepalive_time_ms", 60_000)]
    keepalive = triton.KeepAliveOptions(keepalive_time_ms=60_000)
    with triton.InferenceServerClient(ADDRESS, channel_args=arguments, keepalive_options=keepalive) as client:
        result = client.infer(
            MODEL, inputs(), parameters=SETTINGS, compression_algorithm="gzip", client_timeout=SECONDS
        )
        return plain(result)


@flow
def timeout_and_priority():
    with triton.InferenceServerClient(ADDRESS) as client:
        urgent = client.infer(MODEL, inputs(), parameters=SETTINGS, priority=1, timeout=60_000_000)
        bulk = client.infer(MODEL, inputs(), parameters=SETTINGS, priority=2)
    short = refused(parameters=LONG, timeout=1)
    return {"urgent": plain(urgent), "bulk": plain(bulk), "short": short}


@flow
def cancellation():
    done, seen = threading.Event(), []

    def callback(result, error):
        seen.append(plain(result) if error is None else fault(error))
        done.set()

    with triton.InferenceServerClient(ADDRESS) as client:
        context = client.async_infer(MODEL, inputs(), callback, parameters=LONG)
        time.sleep(0.2)
        context.cancel()
        assert done.wait(SECONDS)
        after = plain(client.infer(MODEL, inputs(), parameters=SETTINGS, client_timeout=SECONDS))
    return {"cancelled": seen[0], "after": after}


@flow
def stream_cancellation():
    seen, begun = [], threading.Event()

    def callback(result, error):
        seen.append(plain(result) if error is None else fault(error))
        begun.set()

    with triton.InferenceServerClient(ADDRESS) as client:
        client.start_stream(callback)
        client.async_stream_infer(MODEL, inputs(), parameters={**LONG, "m2ib_progress": True})
        assert begun.wait(SECONDS)
        client.stop_stream(cancel_requests=True)
    return {"first": seen[0], "last": seen[-1]}


@flow
def refusals():
    shared = inputs()
    shared[0].set_shared_memory("region", 10)
    whole = triton.InferInput("image", [2], "BYTES")
    whole.set_data_from_numpy(np.array([IMAGE, IMAGE], dtype=np.object_))
    numbers = triton.InferInput("image", [1], "FP32")
    numbers.set_data_from_numpy(np.zeros(1, np.float32))
    broken = triton.InferInput("image", [1], "BYTES")
    broken.set_data_from_numpy(np.array([b"no image"], dtype=np.object_))
    return {
        "unknown model": refused(model_name="zebrafinch"),
        "unknown version": refused(model_version="9"),
        "shared memory": refused(inputs=shared),
        "shared memory output": refused(outputs=[_shared_output()]),
        "two images": refused(inputs=[whole, inputs()[1]]),
        "another datatype": refused(inputs=[numbers, inputs()[1]]),
        "no text": refused(inputs=inputs()[:1]),
        "no image": refused(inputs=[broken, inputs()[1]]),
        "classification": refused(outputs=[triton.InferRequestedOutput("grid", class_count=3)]),
        "unknown output": refused(outputs=outputs("zebrafinch")),
        "unknown parameter": refused(parameters={"m2ib_zebrafinch": 1}),
        "range": refused(parameters={"m2ib_beta": -1.0}),
        "type": refused(parameters={"m2ib_steps": "zebrafinch"}),
        "sequence": refused(sequence_id=1, sequence_start=True),
        "progress": refused(parameters={"m2ib_progress": True}),
    }


def _shared_output():
    output = triton.InferRequestedOutput("grid")
    output.set_shared_memory("region", 10)
    return output


@flow
def calls_not_offered():
    def status(call, *arguments):
        try:
            call(*arguments)
        except InferenceServerException as error:
            return fault(error)
        return None

    with triton.InferenceServerClient(ADDRESS) as client:
        return [
            status(client.load_model, MODEL),
            status(client.unload_model, MODEL),
            status(client.get_system_shared_memory_status),
            status(client.register_system_shared_memory, "region", "/key", 10),
            status(client.unregister_system_shared_memory),
            status(client.get_cuda_shared_memory_status),
            status(client.register_cuda_shared_memory, "region", base64.b64encode(b"handle"), 0, 10),
            status(client.unregister_cuda_shared_memory),
            status(client.get_trace_settings),
            status(client.get_log_settings),
        ]


@flow
def descriptors():
    """Return the numbers and types of Triton's fields, by message and field, and its enums' values."""
    from tritonclient.grpc import model_config_pb2, service_pb2  # noqa: PLC0415

    found = {}
    files = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
    waiting = [message for file in files for message in file.message_types_by_name.values()]
    enums = list(model_config_pb2.DESCRIPTOR.enum_types_by_name.values())
    while waiting:
        message = waiting.pop()
        waiting += message.nested_types
        enums += message.enum_types
        for field in message.fields:
            found[field.full_name] = [field.number, field.type, field.is_repeated]
    for enum in enums:
        found |= {f"{enum.full_name}.{value.name}": value.number for value in enum.values}
    methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    return {"fields": found, "methods": [method.name for method in methods]}


def run(function):
    try:
        return function()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    print(json.dumps({name: run(function) for name, function in FLOWS.items()}))
