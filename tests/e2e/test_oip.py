"""An unmodified client of Triton's explains images, in a process of its own: its stubs and ours clash in one."""

import json
import re
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest

from m2ib.oip import inference_pb2 as oip
from m2ib.oip import inference_pb2_grpc, model_config_pb2
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from m2ib_server.oip.outputs import OUTPUTS
from m2ib_server.oip.parameters import NAMES as PARAMETERS
from m2ib_server.oip.request import INPUTS
from wire import details_of, explain_request, png

PAGE = Path(__file__).resolve().parents[2] / "docs/clients/open-inference-protocol.md"
TEXT = "a cat and a dog"
SECONDS = 60
SETTINGS = settings_pb2.Settings(steps=3, samples=2, seed=7, beta=0.2)
DEFAULT = ["grid", "tokens", "token_scores", "similarity"]


@pytest.fixture(scope="module")
def flows(server, tmp_path_factory):
    """What every flow of the program came to, by the flow's name."""
    image = tmp_path_factory.mktemp("oip") / "image.png"
    image.write_bytes(png())
    program = Path(__file__).with_name("triton_flows.py")
    command = [sys.executable, "-W", "error", str(program), server.address, str(image), TEXT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def native(stub):
    """The same pair, settings and seed through our own service."""
    request = explain_request(text=TEXT, settings=SETTINGS, fit=settings_pb2.FIT_STRETCH, outputs=[pb.OUTPUT_MODEL_MAP])
    return stub.Explain(request, timeout=SECONDS).explanation


@pytest.fixture(scope="module")
def inference(channel):
    return inference_pb2_grpc.GRPCInferenceServiceStub(channel)


def values(tensor):
    return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)


def assert_same(answer, native):
    got = answer["values"]
    own = [token for token in native.text.tokens if not token.special]
    np.testing.assert_array_equal(np.float32(got["grid"]), values(native.image.grid_bits))
    assert got["tokens"] == [token.text for token in own] == TEXT.split()
    np.testing.assert_array_equal(np.float32(got["token_scores"]), np.float32([token.bits for token in own]))
    np.testing.assert_array_equal(np.float32(got["similarity"]), np.float32([native.similarity]))


def test_an_answer_is_that_of_the_native_service_in_the_order_asked_for(flows, native):
    answer = flows["infer"]
    assert answer["order"] == ["similarity", "map", "token_scores", "grid", "tokens"]
    assert answer["id"] == "mine"
    assert answer["model"] == ["tiny", "1"]
    assert_same(answer, native)
    np.testing.assert_array_equal(np.float32(answer["values"]["map"]), values(native.image.model_map))
    assert answer["parameters"] == {
        "m2ib_digest": native.provenance.digest,
        "m2ib_partial": False,
        "m2ib_reference_rank": native.reference_rank.rank,
        "m2ib_references": native.reference_rank.references,
    }


@pytest.mark.parametrize("name", ["infer_without_naming_outputs", "async_infer", "aio_infer", "custom_arguments"])
def test_every_way_to_call_gives_the_small_outputs(flows, native, name):
    assert flows[name]["order"] == DEFAULT
    assert_same(flows[name], native)


def test_typed_contents_are_read_and_answered_raw(flows, native):
    answer = flows["explicit_contents"]
    assert not answer["typed"]
    assert all(answer["raw"])
    assert_same(answer, native)


def test_maps_of_the_original_s_size_pictures_and_provenance_can_be_asked_for(flows):
    answer = flows["original_map_and_pictures"]
    assert answer["shape"] == [40, 48]
    assert bytes.fromhex(answer["overlay"]) == b"\x89PNG\r\n\x1a\n"
    assert answer["provenance"]["settings"]["seed"] == "7"
    assert answer["provenance"]["fit"] == "FIT_STRETCH"


def test_a_stream_tells_of_every_step_before_its_final_answer(flows, native):
    *progress, final = flows["stream_with_progress"]
    said = [each["parameters"] for each in progress]
    assert [(each["m2ib_side"], each["m2ib_step"], each["m2ib_steps"]) for each in said] == [
        (side, step, 3) for side in ("image", "text") for step in (1, 2, 3)
    ]
    assert [each["order"] for each in progress] == [["grid"]] * 3 + [[]] * 3
    assert {each["id"] for each in progress} == {"watched"}
    assert not any(each["triton_final_response"] for each in said)
    assert final["parameters"]["triton_final_response"] is True
    assert progress[2]["values"]["grid"] == final["values"]["grid"]
    assert_same(final, native)


def test_a_bad_request_of_a_stream_ends_no_other(flows, native):
    messages = flows["stream_of_several"]
    answers = {each["id"]: each for each in messages if "id" in each}
    (wrong,) = [each for each in messages if "id" not in each]
    assert answers.keys() == {"first", "last"}
    for answer in answers.values():
        assert_same(answer, native)
    assert wrong["message"] == "parameters.m2ib_steps: seen 0; allowed: 1 to 1000"
    assert wrong["status"] is None


def test_errors_end_a_stream_with_a_status_for_who_asks_for_that(flows):
    (only,) = flows["stream_that_errors_end"]
    assert only["status"] == "StatusCode.INVALID_ARGUMENT"


def test_without_progress_a_request_of_a_stream_has_one_answer(flows, native):
    (only,) = flows["aio_stream"]
    assert only["parameters"]["triton_final_response"] is True
    assert_same(only, native)


def test_health_is_that_of_the_server_and_of_the_models_that_are_loaded(flows):
    said = flows["health_and_metadata"]
    assert said["live"] and said["ready"] and said["model"] and said["version"]
    assert not said["other version"] and not said["unknown"]
    index = [(each["name"], each["state"]) for each in said["index"]["models"]]
    assert index == [("demo", "READY"), ("tiny", "READY")]


def test_metadata_and_configuration_describe_the_tensors_of_the_answers(flows):
    said = flows["health_and_metadata"]
    metadata, config = said["metadata"], said["config"]["config"]
    assert [(each["name"], each["datatype"], each["shape"]) for each in metadata["inputs"]] == [
        ("image", "BYTES", ["1"]),
        ("text", "BYTES", ["1"]),
    ]
    described = {each["name"]: (each["datatype"], each["shape"]) for each in metadata["outputs"]}
    types = {"TYPE_FP32": "FP32", "TYPE_STRING": "BYTES"}
    assert {each["name"]: (types[each["data_type"]], each["dims"]) for each in config["output"]} == described
    for name, value in flows["infer"]["values"].items():
        shape = [int(size) for size in described[name][1]]
        assert all(size in (-1, got) for size, got in zip(shape, np.shape(value), strict=True))
    assert metadata["platform"] == config["backend"] == "m2ib"
    assert said["server"]["name"] == "m2ib-server"
    assert said["server"]["extensions"] == ["model_configuration", "parameters", "schedule_policy", "statistics"]


def test_statistics_count_what_was_explained_and_what_failed(flows):
    said = flows["statistics"]
    (before,), (after,) = said["before"]["model_stats"], said["after"]["model_stats"]
    assert int(after["inference_count"]) == int(before["inference_count"]) + 1
    assert int(after["execution_count"]) == int(before["execution_count"]) + 1
    assert int(after["last_inference"]) > int(before["last_inference"])
    spent = {}
    for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
        old, new = before["inference_stats"].get(name, {}), after["inference_stats"][name]
        assert int(new["count"]) == int(old.get("count", 0)) + 1
        spent[name] = int(new["ns"]) - int(old.get("ns", 0))
    assert min(spent.values()) > 0
    assert spent["success"] > spent["queue"] + spent["compute_infer"]
    assert said["models"] == 2


def test_a_timeout_in_microseconds_tightens_the_deadline_and_priorities_are_taken(flows, native):
    said = flows["timeout_and_priority"]
    assert_same(said["urgent"], native)
    assert_same(said["bulk"], native)
    assert said["short"]["status"] == "StatusCode.DEADLINE_EXCEEDED"


def test_a_caller_that_cancels_is_let_go_and_the_server_goes_on(flows, native, server):
    assert flows["cancellation"]["cancelled"]["status"] == "StatusCode.CANCELLED"
    assert_same(flows["cancellation"]["after"], native)
    assert flows["stream_cancellation"]["first"]["parameters"]["m2ib_step"] >= 1
    assert flows["stream_cancellation"]["last"]["status"] == "StatusCode.CANCELLED"
    ended = [each for each in server.events("call ended") if each["code"] == "CANCELLED"]
    assert {"ModelInfer", "ModelStreamInfer.request"} <= {each["method"] for each in ended}


@pytest.mark.parametrize(
    ("case", "status", "opening"),
    [
        ("unknown model", "NOT_FOUND", "Request for unknown model: "),
        ("unknown version", "NOT_FOUND", "Request for unknown model: "),
        ("shared memory", "INVALID_ARGUMENT", "inputs[0].parameters: seen shared memory"),
        ("shared memory output", "INVALID_ARGUMENT", "outputs[0].parameters: seen shared memory"),
        ("two images", "INVALID_ARGUMENT", "inputs.image.shape: "),
        ("another datatype", "INVALID_ARGUMENT", "inputs.image.datatype: "),
        ("no text", "INVALID_ARGUMENT", "inputs.text: "),
        ("no image", "INVALID_ARGUMENT", "inputs.image: "),
        ("classification", "INVALID_ARGUMENT", "outputs[0].parameters: seen classification"),
        ("unknown output", "INVALID_ARGUMENT", "outputs[0].name: "),
        ("unknown parameter", "INVALID_ARGUMENT", "parameters: seen a parameter that is not known"),
        ("range", "INVALID_ARGUMENT", "parameters.m2ib_beta: seen -1; allowed: more than 0"),
        ("type", "INVALID_ARGUMENT", "parameters.m2ib_steps: seen a string"),
        ("sequence", "INVALID_ARGUMENT", "parameters: seen a sequence"),
        ("progress", "INVALID_ARGUMENT", "parameters.m2ib_progress: "),
    ],
)
def test_what_is_not_allowed_is_refused_without_the_caller_s_words(flows, case, status, opening):
    refusal = flows["refusals"][case]
    assert refusal["status"] == f"StatusCode.{status}"
    assert refusal["message"].startswith(opening)
    assert "zebrafinch" not in refusal["message"]


def test_calls_that_are_not_offered_say_why(flows):
    refusals = flows["calls_not_offered"]
    assert len(refusals) == 10
    for refusal in refusals:
        assert refusal["status"] == "StatusCode.UNIMPLEMENTED"
        assert refusal["message"].startswith("this server does not offer this call: ")


def test_fields_and_enums_have_the_numbers_and_types_of_triton_s(flows):
    theirs, ours = flows["descriptors"]["fields"], {}
    files = (oip.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
    waiting = [message for file in files for message in file.message_types_by_name.values()]
    enums = list(model_config_pb2.DESCRIPTOR.enum_types_by_name.values())
    while waiting:
        message = waiting.pop()
        waiting += message.nested_types
        enums += message.enum_types
        for field in message.fields:
            ours[field.full_name] = [field.number, field.type, field.is_repeated]
    for enum in enums:
        ours |= {f"{enum.full_name}.{value.name}": value.number for value in enum.values}
    properties = {name for name in ours if name.startswith("inference.ModelMetadataResponse.") and "ropert" in name}
    assert len(properties) == 3  # a map and its entries, which are the protocol's and not Triton's
    assert {name: theirs.get(name) for name in ours if name not in properties} == {
        name: said for name, said in ours.items() if name not in properties
    }
    methods = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    assert sorted(method.name for method in methods) == sorted(flows["descriptors"]["methods"])


def test_a_refusal_carries_the_details_of_every_refusal(inference):
    request = oip.ModelInferRequest(model_name="tiny", parameters={"m2ib_fit": oip.InferParameter(string_param="odd")})
    with pytest.raises(grpc.RpcError) as caught:
        inference.ModelInfer(request, timeout=SECONDS)
    details = details_of(caught.value)
    (violation,) = details["BadRequest"].field_violations
    assert violation.field == "parameters.m2ib_fit"
    assert details["ErrorInfo"].reason == "INVALID_FIELD"


def test_calls_of_this_protocol_are_logged_as_all_calls_are(inference, server):
    call = inference.ServerReady.with_call(oip.ServerReadyRequest(), timeout=SECONDS)[1]
    request_id = dict(call.trailing_metadata())["m2ib-request-id"]
    (line,) = [each for each in server.events("call ended") if each["request_id"] == request_id]
    assert (line["method"], line["code"]) == ("ServerReady", "OK")


def test_the_page_for_integrators_runs_as_it_stands(server, tmp_path):
    (tmp_path / "film.png").write_bytes(png())
    code = "".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    hanging = "import faulthandler; faulthandler.dump_traceback_later(100, exit=True)\n"  # lest nobody learns where
    program = hanging + code.replace("127.0.0.1:50051", server.address).replace('"demo"', '"tiny"')
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("grid in bits (4, 4)") == 2
    assert "map in [0, 1] (32, 32)" in done.stdout
    assert "image 1 of " in done.stdout and "text 1 of " in done.stdout


def test_the_page_names_every_output_and_parameter():
    page = PAGE.read_text(encoding="utf-8")
    for name in (*(output.name for output in OUTPUTS), *PARAMETERS, *INPUTS):
        assert f"`{name}`" in page


def test_our_client_and_triton_s_live_in_one_process():
    command = [sys.executable, "-c", "import m2ib_client, tritonclient.grpc"]
    subprocess.run(command, check=True, timeout=120)


def test_nothing_of_what_was_sent_is_in_the_log(flows, server):
    assert "zebrafinch" not in server.log()
    assert TEXT not in server.log()
