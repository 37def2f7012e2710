"""The laws every exported graph keeps, for every family: a new family adds one row to CHECKPOINTS."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from google.protobuf import json_format
from torch import Tensor
from torch.nn.functional import normalize

from checkpoints import write_checkpoint
from m2ib.v1 import manifest_pb2 as pb
from m2ib_export.families import FAMILIES, OriginalModel, load_original
from m2ib_export.gradient import similarity_and_gradient
from m2ib_export.tokeniser import pad
from packages import export

CHECKPOINTS = {
    "clip": ("clip", "tiny", False, ("--vision-layer", "0", "--text-layer", "0")),
    "clip-gelu-legacy": ("clip", "tiny-gelu", True, ()),
}
ROLES = [role for name, role in pb.GraphRole.items() if role != pb.GRAPH_ROLE_UNSPECIFIED]
TEXT_ROLES = (pb.GRAPH_ROLE_TEXT_TAIL, pb.GRAPH_ROLE_TEXT_TAIL_GRAD)
UNSEEN_ROWS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    token_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    directory: Path
    manifest: pb.Manifest
    original: OriginalModel
    sessions: dict[int, ort.InferenceSession]

    def run(self, role, inputs):
        graph = next(graph for graph in self.manifest.graphs if graph.role == role)
        feed = {port.name: value.numpy() for port, value in zip(graph.inputs, inputs, strict=True)}
        return self.sessions[role].run([port.name for port in graph.outputs], feed)

    def texts(self, rows, seed):
        """Texts of mixed lengths, none of which was compared at the export."""
        text, draw = self.manifest.text, torch.Generator().manual_seed(seed)
        lengths = [4 + row % (text.context_length - 5) for row in range(rows)]
        words = [torch.randint(text.start_token_id, (length - 2,), generator=draw).tolist() for length in lengths]
        framed = [[text.start_token_id, *row, text.end_token_id] for row in words]
        batch = pad(framed, padding=text.end_token_id)
        return Texts(token_ids=batch.token_ids, attention_mask=batch.attention_mask)

    def inputs(self, role, rows, seed=7):
        """Seeded inputs of a graph; those of a tail come from the original's own features."""
        draw = torch.Generator().manual_seed(seed)
        size = self.manifest.vision.image_size
        pixels = torch.randn(rows, self.manifest.vision.channels, size, size, generator=draw)
        target = normalize(torch.randn(rows, self.manifest.embedding_width, generator=draw), dim=-1)
        texts = self.texts(rows, seed)
        image_features = self.original.image_features(pixels, self.manifest.vision.layer)
        text_features = self.original.text_features(texts.token_ids, texts.attention_mask, self.manifest.text.layer)
        conditions = (texts.attention_mask, texts.attention_mask.sum(dim=-1) - 1)
        return {
            pb.GRAPH_ROLE_VISION_HEAD: (pixels,),
            pb.GRAPH_ROLE_VISION_TAIL: (image_features,),
            pb.GRAPH_ROLE_VISION_TAIL_GRAD: (image_features, target),
            pb.GRAPH_ROLE_TEXT_HEAD: (texts.token_ids, texts.attention_mask),
            pb.GRAPH_ROLE_TEXT_TAIL: (text_features, *conditions),
            pb.GRAPH_ROLE_TEXT_TAIL_GRAD: (text_features, *conditions, target),
        }[role]

    def expected(self, role, inputs, seed=7):
        """The original model's answer to the same inputs, by its own layers and autograd."""
        texts = self.texts(len(inputs[0]), seed)
        vision, text = self.manifest.vision.layer, self.manifest.text.layer

        def image_tail(features):
            return self.original.image_tail(features, vision)

        def text_tail(features):
            return self.original.text_tail(features, texts.token_ids, texts.attention_mask, text)

        answer = {
            pb.GRAPH_ROLE_VISION_HEAD: lambda: [self.original.image_features(inputs[0], vision)],
            pb.GRAPH_ROLE_VISION_TAIL: lambda: [image_tail(inputs[0])],
            pb.GRAPH_ROLE_VISION_TAIL_GRAD: lambda: similarity_and_gradient(image_tail, inputs[0], inputs[-1]),
            pb.GRAPH_ROLE_TEXT_HEAD: lambda: [self.original.text_features(*inputs, text)],
            pb.GRAPH_ROLE_TEXT_TAIL: lambda: [text_tail(inputs[0])],
            pb.GRAPH_ROLE_TEXT_TAIL_GRAD: lambda: similarity_and_gradient(text_tail, inputs[0], inputs[-1]),
        }
        return [output.numpy() for output in answer[role]()]


def open_subject(family, checkpoint, package):
    manifest = json_format.Parse((package / "manifest.json").read_text(encoding="utf-8"), pb.Manifest())
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    sessions = {
        graph.role: ort.InferenceSession(str(package / graph.file), options, providers=["CPUExecutionProvider"])
        for graph in manifest.graphs
    }
    original = load_original(family, checkpoint)
    return Subject(directory=package, manifest=manifest, original=original, sessions=sessions)


@pytest.fixture(scope="module", params=CHECKPOINTS)
def subject(request, tmp_path_factory):
    family, preset, is_legacy, flags = CHECKPOINTS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = write_checkpoint(folder / "checkpoint", preset, is_legacy=is_legacy)
    return open_subject(family, checkpoint, export(checkpoint, folder / "package", *flags))


def relative_error(ours, expected):
    assert ours.shape == expected.shape
    return np.abs(ours - expected).max() / np.abs(expected).max()


def test_every_family_has_a_row():
    assert {family for family, *_ in CHECKPOINTS.values()} == set(FAMILIES)


@pytest.mark.parametrize("role", ROLES, ids=pb.GraphRole.Name)
@pytest.mark.parametrize("rows", [1, UNSEEN_ROWS])
def test_graph_follows_the_original_at_unseen_sizes(subject, role, rows):
    inputs = subject.inputs(role, rows)
    for ours, expected in zip(subject.run(role, inputs), subject.expected(role, inputs), strict=True):
        assert relative_error(ours, expected) < 2e-5


@pytest.mark.parametrize("role", ROLES, ids=pb.GraphRole.Name)
def test_row_alone_equals_row_in_a_batch(subject, role):
    inputs = subject.inputs(role, UNSEEN_ROWS)
    together = subject.run(role, inputs)
    for row in range(UNSEEN_ROWS):
        alone = subject.run(role, tuple(value[row : row + 1] for value in inputs))
        for one, many in zip(alone, together, strict=True):
            assert relative_error(one[0], many[row]) < 1e-5


@pytest.mark.parametrize("role", ROLES, ids=pb.GraphRole.Name)
def test_same_inputs_give_the_same_bits(subject, role):
    inputs = subject.inputs(role, UNSEEN_ROWS)
    first, second = subject.run(role, inputs), subject.run(role, inputs)
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("role", ROLES, ids=pb.GraphRole.Name)
def test_different_rows_give_different_answers(subject, role):
    for output in subject.run(role, subject.inputs(role, 2)):
        assert np.abs(output[0] - output[1]).max() > 1e-3 * np.abs(output).max()


@pytest.mark.parametrize("role", TEXT_ROLES, ids=pb.GraphRole.Name)
def test_padding_changes_nothing(subject, role):
    features, mask, position, *target = subject.inputs(role, 2)
    shortest = int(mask[0].sum())
    padded = (features[:1], mask[:1], position[:1], *(value[:1] for value in target))
    cut = (features[:1, :shortest], mask[:1, :shortest], *padded[2:])
    assert mask.shape[1] > shortest
    assert relative_error(subject.run(role, cut)[0], subject.run(role, padded)[0]) < 1e-5


def test_gradient_of_tokens_behind_the_pooled_one_is_zero(subject):
    features, mask, position, target = subject.inputs(pb.GRAPH_ROLE_TEXT_TAIL_GRAD, 2)
    _, gradient = subject.run(pb.GRAPH_ROLE_TEXT_TAIL_GRAD, (features, mask, position, target))
    behind = int(position[0]) + 1
    assert not gradient[0, behind:].any()
    assert gradient[0, :behind].any(axis=-1).all()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("preset", ["vit-b-32", "vit-b-16", "vit-l-14"])
def test_full_size_graphs_follow_the_original(preset, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", preset)
    subject = open_subject("clip", checkpoint, export(checkpoint, tmp_path / "package"))
    for role in ROLES:
        inputs = subject.inputs(role, 4)
        for ours, expected in zip(subject.run(role, inputs), subject.expected(role, inputs), strict=True):
            assert relative_error(ours, expected) < 1e-4
