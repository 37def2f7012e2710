"""Writes the model card from the evaluation and the sweep, so that no figure in it is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

CARD = Template("""\
# Model card: demo

A small CLIP for trying the service out. It was trained on **procedural phantom chest radiographs alone**: drawn
images of a schematic chest. It has never seen a patient's image and must not be used on one; what it says about
a real radiograph means nothing.

- Architecture: `CLIPModel`, $parameters parameters. Vision: 128 x 128 pixels, patches of 16 (8 x 8 grid), width 128,
  6 blocks. Text: width 128, 3 blocks, at most 32 tokens. Projection 128. Weights: $megabytes MB, float32.
- Tokeniser: CLIP's byte-level scheme, its merges learned from the phrases; any text can be encoded, words outside the
  phrases fall apart into letters and carry no meaning.
- Findings: nodule, mass, opacity, plate atelectasis (by side and zone), pleural effusion, pneumothorax, pacemaker,
  central line (by side), enlarged heart; one to three in a film, or none.
- Input: 8-bit grey, bones bright, letterboxed to a square with black bars.

## Training

Contrastive loss in which every caption that is true of a film counts as right, and each film gets a near miss to turn
down. Three helps, thrown away afterwards, read the phantoms' masks: findings of the film, kind and side of the
finding in each patch (after vision block 2 and after the last), and fit of each patch with the caption. The helps are
why so small a model learns within an hour, and why its patches carry what an explanation can find:
**expect less of a CLIP that was trained on pairs alone.** The run is in `training_log.jsonl`. Training films have the
seeds from 1,000,000, validation films from 2,000,000, test films from 3,000,000.

The first 750 steps (peak rate 2e-3) were one process of two threads; the 4,000 that followed, two processes on shared
weights with fresh helps and optimisers; the weights are those of step 4,001 of that part, the best on 600 validation
films. Both parts ended after a number of minutes and the second's processes wrote to the weights in no fixed order, so
the run is not repeatable bit by bit; the films, phrases, masks and tokeniser are.

## Evaluation

$count test films drawn as in training, and $count with two findings each; 95 % bootstrap intervals over films.

### Reading: nearest phrase to a film, right if all it claims is true

$reading

Own caption nearest among those of 100 films (several are often true): $own; a true one: $true.

### Showing: M2IB maps at vision block $block, phrase of one finding, any wording

*Pointing*: the centre of the brightest patch lies in the box of the finding's mask grown by one patch (16 pixels).
*Lift*: the share of the map's mass that lies in the mask, over the mask's share of the film; the map is brought from
8 x 8 to 32 x 32 bilinearly, the mask counts each of the 32 x 32 cells by the share covered. *Named brighter*: in films
of two findings, the named one has the higher peak of the map over its cells ("mean": the higher mean); a tie is a half.
10 noise rows, Adam with rate 1. *Token norm*: the squared norm of the patches at the same block, no phrase involved.
*Mixed*: the $shown test films that show a finding. *Absent phrase*, the control: $control
asked about a finding of a kind that is not there, in a wording drawn at random. That is stricter than a phrase drawn
at random among all but the film's own, which may name a kind that the film shows, on its other side or in another zone.

$localisation

The recipe's default is the channel mask at beta $beta and $steps steps, the published method's number; with 20 steps it
costs twice as much and is sharper. Beta 1 is the paper's for chest films. By kind of the finding named, two-finding
films, channel mask at beta $beta, 20 steps:

$by_kind

**A map is drawn for any phrase.** Asked about a finding that is absent, the map still picks a place, about half the
time that of the finding that is present. With the token mask the cosine of the masked film tells the two apart (columns
above); **with the channel mask it hardly does**: a mask that weighs every channel can bend a film towards almost any
phrase. Look at the cosine of the untouched film instead: $present for a finding that is there, $absent for one that is
not, and the former the higher in $higher of films. Pleural effusion is the weakest kind:
its map often lies beside its mask.

### Text maps

Phrase "A and B", film showing only one of the two: how often do the words of that one hold more bits a word? Text
block $text_block, $wording_films films (chance is one half). With the channel mask text maps are near chance, also with
the recipe's default (beta 0.3, 10 steps: .59): **do not read them.** The recipe's efforts `fast` and `specific` give
the text the token mask at beta 0.03: .84 and .86 on the same films, two seeds. Two words in three then hold less than
.01 bit: read their order, not their bits. See `docs/fidelity.md`.

$wording

## Choice of block and beta

The block and both masks' betas were chosen on $sweep_films two-finding validation films with $sweep_rows noise rows,
from the whole sweep in `selection.jsonl` (betas 5 and 10 were added after a first look); one block serves both masks.
The channel mask keeps the published 10 steps; beta 5 is its best for that block at 10 steps and at 20. *Merit* is
pointing plus named brighter plus a hundredth of the lift. With $sweep_films films, differences below .06 are noise.
The best by mask shape and block, each at its best beta and number of steps:

$sweep
""")


def write_card(out: Path, evaluation: Path, sweep: Path, checkpoint: Path) -> None:
    """Write the card. evaluation: JSON; sweep: JSON lines; checkpoint: the folder with weights and recipe."""
    figures = json.loads(evaluation.read_text(encoding="utf-8"))
    entries = [json.loads(line) for line in sweep.read_text(encoding="utf-8").splitlines()]
    recipe = json.loads((checkpoint / "m2ib.json").read_text(encoding="utf-8"))
    size = (checkpoint / "model.safetensors").stat().st_size
    batch = figures["reading"]["in_batch_of_100"]
    shown, control = (films_behind(figures[part]) for part in ("localisation", "absent_phrase"))
    text = CARD.substitute(
        parameters=f"{size / 4e6:.2f} million",
        megabytes=f"{size / 1e6:.1f}",
        count=figures["films"]["mixed"],
        reading=reading_table(figures["reading"]),
        own=cell(batch["own"]),
        true=cell(batch["true"]),
        block=recipe["vision_layer"],
        shown=shown,
        control=f"all {shown} of them" if control == shown else f"only the first {control} of them",
        localisation=localisation_table(figures),
        by_kind=kind_table(figures["two_findings"]["channel"]["steps_20"]["by_kind"]),
        beta=recipe["defaults"]["channel"]["beta"],
        steps=recipe["defaults"]["channel"]["steps"],
        present=figures["untouched"]["present"],
        absent=figures["untouched"]["absent"],
        higher=cell(figures["untouched"]["present_higher"]),
        text_block=recipe["text_layer"],
        wording_films=figures["films"]["wording"],
        wording=wording_table(figures["wording"]),
        sweep_films=entries[0]["films"],
        sweep_rows=entries[0]["rows"],
        sweep=sweep_table(entries),
    )
    out.write_text(text, encoding="utf-8")


def films_behind(figures: dict[str, Any]) -> int:
    """The films that the maps of one set were measured on."""
    return int(figures["channel"]["steps_10"]["pointing"]["films"])


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)


def cell(value: dict[str, float] | None) -> str:
    """A figure with its interval, or a dash."""
    return f"{value['mean']:.3g} ({value['low']:.3g} to {value['high']:.3g})" if value else "-"


def reading_table(reading: dict[str, Any]) -> str:
    """Retrieval among plain phrases and all wordings."""
    names = {"plain": "one phrase a finding", "all_wordings": "every wording"}
    rows = [
        [label, part["phrases"], part["chance_top1"], cell(part["top1"]), cell(part["top5"])]
        for name, label in names.items()
        for part in [reading[name]]
    ]
    return table(["among", "phrases", "chance", "top 1", "top 5"], rows)


def localisation_table(figures: dict[str, Any]) -> str:
    """Every map on both sets of films."""
    header = ["films", "map", "pointing", "lift", "named brighter (peak)", "(mean)", "cosine", "bits"]
    sets = (
        ("mixed", setting_parts(figures["localisation"])),
        ("mixed", setting_parts(figures["absent_phrase"], "absent phrase: ")),
        ("two findings", setting_parts(figures["two_findings"])),
    )
    rows = []
    for label, parts in sets:
        for name, part in parts:
            named = [cell(part.get(key)) for key in ("named_brighter_peak", "named_brighter_mean")]
            tail = [part.get("cosine", "-"), part.get("bits", "-")]
            rows.append([label, name, cell(part["pointing"]), cell(part["lift"]), *named, *tail])
    return table(header, rows)


def setting_parts(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """The parts of one set of films with their labels, the token norm last where there is one."""
    parts = [
        (f"{prefix}{name.split('_')[0]} mask, beta {setting['beta']}, {key.removeprefix('steps_')} steps", setting[key])
        for name, setting in figures.items()
        for key in setting
        if key.startswith("steps_")
    ]
    if "token_norm" in figures:
        parts.append(("token norm", figures["token_norm"]))
    return parts


def kind_table(by_kind: dict[str, dict[str, float]]) -> str:
    """Means by kind."""
    rows = [
        [kind, part["films"], part["pointing"], part["lift"], part["named_brighter_peak"]]
        for kind, part in by_kind.items()
    ]
    return table(["kind", "films", "pointing", "lift", "named brighter (peak)"], rows)


def wording_table(wording: dict[str, Any]) -> str:
    """Text maps of every setting."""
    rows = [
        [name.split("_")[0], part["beta"], key.removeprefix("steps_"), cell(part[key])]
        for name, part in wording.items()
        for key in part
        if key.startswith("steps_")
    ]
    return table(["mask", "beta", "steps", "right half brighter"], rows)


def sweep_table(entries: list[dict[str, Any]]) -> str:
    """The best entry for each mask shape and block."""
    rows = []
    for shape in ("channel", "token"):
        for block in sorted({entry["block"] for entry in entries}):
            best = max(
                (entry for entry in entries if (entry["mask_shape"], entry["block"]) == (shape, block)), key=merit
            )
            columns = ("beta", "steps", "pointing", "lift", "named")
            rows.append([shape, block, *(best[column] for column in columns), round(merit(best), 3)])
    return table(["mask", "block", "beta", "steps", "pointing", "lift", "named brighter (peak)", "merit"], rows)


def merit(entry: dict[str, Any]) -> float:
    """What the choice goes by: pointing plus named brighter, and a little for lift."""
    return float(entry["pointing"] + entry["named"] + 0.01 * min(entry["lift"], 40.0))
