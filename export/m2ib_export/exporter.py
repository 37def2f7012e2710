"""Owns the order of an export: read the checkpoint, write the graphs, compare them with the original, seal."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from onnx_ir import Model
from torch import nn

from m2ib.v1 import manifest_pb2 as pb
from m2ib_export import __version__
from m2ib_export.checkpoint import default_name, open_checkpoint, read_config
from m2ib_export.families import OriginalModel, Split, load_original
from m2ib_export.geometry import Layers, resolve_layers
from m2ib_export.gradient import trace_gradient
from m2ib_export.graph import example_inputs, to_graph, write_graph
from m2ib_export.half import halve_products, widen_products
from m2ib_export.map_parity import measure_maps
from m2ib_export.package import describe_files, whole_directory, write_manifest
from m2ib_export.parity import Figure, Graphs, Vocabulary, check_parity, measure_parity
from m2ib_export.precision import Precision
from m2ib_export.preprocessing import Preprocessing, read_preprocessing
from m2ib_export.recipe import Recipe, override, read_recipe
from m2ib_export.reference import embed_reference_texts, read_reference_texts
from m2ib_export.signature import BATCH, TOKENS, Role, Signature, signatures
from m2ib_export.tokeniser import Tokeniser, read_tokeniser
from m2ib_export.weights import WeightsFile

SCHEMA_VERSION = 2
TOKENIZER_FILE = "tokenizer.json"
TEXTS_FILE = "reference_texts.txt"
EMBEDDINGS_FILE = "reference_embeddings.f32"
LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "tokenizers", "torch", "transformers")
EXAMPLE_SIZES = {BATCH: 3, TOKENS: 7}
"""Sizes to trace with: above 1, and unlike any other size, so that tracing takes none of them for another."""

Stages = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is exported whereto.

    checkpoint: a directory, a name of the Hugging Face hub, or "demo".
    options: the recipe's fields that win over the recipe file beside the checkpoint.
    precision: of the products of heads and tails.
    threads: threads that torch and ONNX Runtime may use, >= 1.
    """

    checkpoint: str
    output: Path
    options: dict[str, str | int | None]
    is_replacing: bool = False
    threads: int = 1
    precision: Precision = Precision.FP32


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint, read and checked, with all that its export depends on."""

    family: str
    name: str
    recipe: Recipe
    original: OriginalModel
    layers: Layers
    tokeniser: Tokeniser
    end_token_id: int
    preprocessing: Preprocessing
    reference_texts: tuple[str, ...]

    @property
    def vocabulary(self) -> Vocabulary:
        """The token ids that the parity check makes texts of."""
        ordinary = min(self.tokeniser.highest_token_id, self.original.geometry.text.vocabulary_size)
        return Vocabulary(start=self.tokeniser.start_token_id, end=self.end_token_id, ordinary=ordinary)


def export(task: Export, on_stage: Stages) -> pb.Manifest:
    """Export a checkpoint as a model package and return its manifest; on_stage hears each stage's name as it starts.

    Raises:
        ExportError: the checkpoint, an option, the output's place or the parity is not what is allowed; the output
            directory is then as it was.
    """
    torch.set_num_threads(task.threads)
    with (
        whole_directory(task.output, is_replacing=task.is_replacing) as directory,
        open_checkpoint(task.checkpoint) as source,
    ):
        on_stage("Reading the checkpoint")
        checkpoint = read_checkpoint(source, name=default_name(task.checkpoint), options=task.options)
        table = _write_graphs(directory, checkpoint, task.precision, on_stage)
        on_stage("Embedding the reference texts")
        _write_texts(directory, checkpoint)
        on_stage("Comparing with the original model")
        graphs = Graphs(directory, table, precision=task.precision, threads=task.threads)
        figures = _measure(graphs, checkpoint)
        check_parity(figures)
        on_stage("Sealing the package")
        manifest = _manifest(directory, checkpoint, graphs, figures)
        write_manifest(directory, manifest)
    return manifest


def read_checkpoint(directory: Path, *, name: str, options: dict[str, str | int | None]) -> Checkpoint:
    """Read a checkpoint's directory; name is used when neither the recipe nor the options have one.

    Raises:
        ExportError: a file of the checkpoint or an option is not what is allowed.
    """
    family = str(read_config(directory).get("model_type"))
    recipe = override(read_recipe(directory), **options)
    reference_texts = read_reference_texts(recipe.reference_texts)
    original = load_original(family, directory)
    tokeniser = read_tokeniser(directory)
    end_token_id = original.end_token_id(tokeniser_end=tokeniser.end_token_id, highest_token=tokeniser.highest_token_id)
    return Checkpoint(
        family=family,
        name=recipe.name or name,
        recipe=recipe,
        original=original,
        layers=resolve_layers(original.geometry, vision=recipe.vision_layer, text=recipe.text_layer),
        tokeniser=tokeniser,
        end_token_id=end_token_id,
        preprocessing=read_preprocessing(directory, original.geometry.vision),
        reference_texts=reference_texts,
    )


def _write_graphs(
    directory: Path, checkpoint: Checkpoint, precision: Precision, on_stage: Stages
) -> dict[Role, Signature]:
    geometry = checkpoint.original.geometry
    table = signatures(geometry)
    modules = _modules(checkpoint.original.split(checkpoint.layers))
    sizes = {**EXAMPLE_SIZES, TOKENS: min(EXAMPLE_SIZES[TOKENS], geometry.text.context_length)}
    with ExitStack() as stack:
        names = {signature.weights_file for signature in table.values()}
        weights = {name: stack.enter_context(WeightsFile(directory / name)) for name in sorted(names)}
        for role, signature in table.items():
            on_stage(f"Writing {signature.file}")
            example = example_inputs(signature, sizes)
            module = modules[role]
            if role in GRADIENT_ROLES:
                module = trace_gradient(module, example, scale=precision.gradient_scale)
            graph = to_graph(module, example, signature, max_tokens=geometry.text.context_length)
            _write_graph(graph, directory, signature, weights[signature.weights_file], precision)
    return table


def _write_graph(
    graph: Model, directory: Path, signature: Signature, weights: WeightsFile, precision: Precision
) -> None:
    """Write a float32 graph in the package's precision and, in half precision, the portable graph beside it."""
    if precision.is_half:
        halve_products(graph, precision)
    weights.take(graph.graph)
    write_graph(graph, directory / signature.file)
    if precision.is_half:
        widen_products(graph, precision)
        write_graph(graph, directory / signature.portable_file)


GRADIENT_ROLES = frozenset({pb.GRAPH_ROLE_VISION_TAIL_GRAD, pb.GRAPH_ROLE_TEXT_TAIL_GRAD})


def _modules(split: Split) -> dict[Role, nn.Module]:
    return {
        pb.GRAPH_ROLE_VISION_HEAD: split.vision_head,
        pb.GRAPH_ROLE_VISION_TAIL: split.vision_tail,
        pb.GRAPH_ROLE_VISION_TAIL_GRAD: split.vision_tail,
        pb.GRAPH_ROLE_TEXT_HEAD: split.text_head,
        pb.GRAPH_ROLE_TEXT_TAIL: split.text_tail,
        pb.GRAPH_ROLE_TEXT_TAIL_GRAD: split.text_tail,
    }


def _measure(graphs: Graphs, checkpoint: Checkpoint) -> tuple[Figure, ...]:
    subject = (graphs, checkpoint.original, checkpoint.layers, checkpoint.vocabulary)
    return *measure_parity(*subject), *measure_maps(*subject, checkpoint.recipe.to_plans())


def _write_texts(directory: Path, checkpoint: Checkpoint) -> None:
    embeddings = embed_reference_texts(
        checkpoint.reference_texts,
        source=checkpoint.recipe.reference_texts,
        tokeniser=checkpoint.tokeniser,
        original=checkpoint.original,
    )
    (directory / EMBEDDINGS_FILE).write_bytes(np.ascontiguousarray(embeddings, dtype="<f4").tobytes())
    (directory / TEXTS_FILE).write_text("\n".join(checkpoint.reference_texts) + "\n", encoding="utf-8")
    (directory / TOKENIZER_FILE).write_text(checkpoint.tokeniser.to_json(), encoding="utf-8")


def _manifest(directory: Path, checkpoint: Checkpoint, graphs: Graphs, figures: tuple[Figure, ...]) -> pb.Manifest:
    recipe = checkpoint.recipe
    return pb.Manifest(
        schema_version=SCHEMA_VERSION,
        name=checkpoint.name,
        version=recipe.version,
        family=checkpoint.family,
        precision=graphs.precision.value,
        embedding_width=checkpoint.original.geometry.embedding_width,
        vision=_vision_encoder(checkpoint),
        text=_text_encoder(checkpoint),
        preprocessing=checkpoint.preprocessing.to_proto(recipe.fit),
        defaults=recipe.to_defaults(),
        reference_texts=pb.ReferenceTexts(
            texts_file=TEXTS_FILE, embeddings_file=EMBEDDINGS_FILE, count=len(checkpoint.reference_texts)
        ),
        tokenizer_file=TOKENIZER_FILE,
        graphs=[signature.to_proto(graphs.precision) for signature in graphs.signatures.values()],
        files=describe_files(directory),
        parity=[figure.to_proto() for figure in figures],
        software={"m2ib-export": __version__, **{library: version(library) for library in LIBRARIES}},
    )


def _vision_encoder(checkpoint: Checkpoint) -> pb.VisionEncoder:
    vision = checkpoint.original.geometry.vision
    return pb.VisionEncoder(
        layer=checkpoint.layers.vision,
        depth=vision.depth,
        width=vision.width,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        grid_rows=vision.grid,
        grid_columns=vision.grid,
        leading_tokens=vision.leading_tokens,
        channels=vision.channels,
    )


def _text_encoder(checkpoint: Checkpoint) -> pb.TextEncoder:
    text = checkpoint.original.geometry.text
    return pb.TextEncoder(
        layer=checkpoint.layers.text,
        depth=text.depth,
        width=text.width,
        context_length=text.context_length,
        end_token_id=checkpoint.end_token_id,
        start_token_id=checkpoint.tokeniser.start_token_id,
    )
