"""The pictures are read off the live model: another model, another picture; nothing is left out or invented."""

import math
import re
from dataclasses import replace

import pytest
import torch
from helpers import inputs, opened, tiny
from torch import nn

from cdt_lite.figures import diagrams, mechanisms
from cdt_lite.figures.trace import amount, meta_model, shape, trace
from cdt_lite.model import PRESETS, build
from cdt_lite.model.config import DiffusionConfig
from cdt_lite.model.v1 import mask_probabilities

VARIANTS = {
    "v1": tiny("v1"), "lite": tiny("lite"), "deep": tiny("lite", n_layer=5), "four heads": tiny("v1", n_head=4),
    "three control layers": tiny("v1", control_set_encoder_layers=3),
}
PARTS = {  # what can be left out of a model -> the pictures that it changes
    "embed.statistics": ["conditioning_pipeline", "architecture_overview", "forward_pass_flow", "layer_breakdown"],
    "embed.effect": ["conditioning_pipeline", "forward_pass_flow", "layer_breakdown"],
    "embed.summary": ["conditioning_pipeline", "forward_pass_flow", "layer_breakdown"],
    "depth": ["conditioning_pipeline", "architecture_overview", "forward_pass_flow", "layer_breakdown"],
}
ALLOWED = re.compile(r"[\x20-\x7e\n×→√·–±²]*")  # the letters that were looked at in every font in use


def collapsed(name: str) -> str:
    return re.sub(r"(blocks|layers)\.\d+", r"\1.*", name)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_every_module_with_parameters_appears_exactly_once(config):
    model, d = meta_model(config), diagrams.layer_breakdown(config)
    held = {name: sum(p.numel() for p in module.parameters(recurse=False)) for name, module in model.named_modules()
            if list(module.parameters(recurse=False))}
    names = {collapsed(name) for name in held}
    listed = [(f"{part}.{row[0]}" if f"{part}.{row[0]}" in names else part, row)  # a part's own row bears its last name
              for part, box in d.boxes.items() for row in box["rows"] if row[0] != "(no weights)"]
    assert sorted(name for name, _ in listed) == sorted(names)
    for name, row in listed:
        assert {f"{n:,}" for full, n in held.items() if collapsed(full) == name} == {row[2]}
    times = {"blocks": config.model.n_layer, "layers": config.model.control_set_encoder_layers}
    total = sum(int(row[2].replace(",", "")) * next((n for key, n in times.items() if f"{key}.*" in name), 1)
                for name, row in listed)
    assert total == sum(held.values()) and f"{total:,}" in d.title


@pytest.mark.parametrize("draw", diagrams.DIAGRAMS.values(), ids=diagrams.DIAGRAMS)
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_every_arrow_joins_two_boxes_and_every_box_is_joined(config, draw):
    d = draw(config)
    ends = {link[end].split(":")[0] for link in d.links for end in ("from", "to")}
    assert ends <= set(d.boxes)
    if d.name != "layer_breakdown":  # an inventory
        assert set(d.boxes) == ends
    for link in d.links:  # ports are there too
        for key, *port in (link[end].split(":") for end in ("from", "to")):
            if port:
                assert any(cell.startswith(f"{port[0]}|") for row in d.boxes[key]["rows"] for cell in row), link
    assert {key for rank in d.ranks for key in rank} <= set(d.boxes)
    assert ALLOWED.fullmatch(d.dot) and len({box["title"] for box in d.boxes.values()}) > 3
    assert d.data["alt"] == d.alt and str(len([b for b in d.boxes.values() if b["title"]])) in d.alt


def test_every_block_reads_the_memory_and_the_condition():
    for config in (tiny("lite", n_layer=4), tiny("v1", n_layer=3)):
        d, blocks = diagrams.architecture_overview(config), [f"blocks.{i}" for i in range(config.model.n_layer)]
        def readers(kind, d=d):
            return [link["to"] for link in d.links if link["kind"] == kind and link["to"].startswith("blocks")]
        assert readers("control") == blocks
        assert readers("condition") == ([] if config.system == "v1" else blocks)
        assert readers("stream") == blocks
        assert f"{sum(p.numel() for p in meta_model(config).parameters()):,}" in d.title


def test_depth_heads_and_genes_change_the_pictures():
    base = tiny("lite")
    for change, names in (({"n_layer": 3}, ["architecture_overview", "layer_breakdown", "forward_pass_flow"]),
                          ({"n_head": 4}, ["attention_mechanism", "forward_pass_flow"]),
                          ({"n_genes": 20}, ["architecture_overview", "attention_mechanism", "diffusion_process"])):
        other = replace(base, model=replace(base.model, **change))
        for name in names:
            assert diagrams.DIAGRAMS[name](base).dot != diagrams.DIAGRAMS[name](other).dot, (change, name)
            assert diagrams.DIAGRAMS[name](base).dot == diagrams.DIAGRAMS[name](base).dot


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_the_model_lacks_is_not_drawn(monkeypatch, part):
    whole = {name: diagrams.DIAGRAMS[name](tiny("lite")).dot for name in PARTS[part]}
    inside = f"{part}."
    less = {name: layer for name, layer in trace(tiny("lite")).items() if not f"{name}.".startswith(inside)}
    for module in (diagrams, mechanisms):
        monkeypatch.setattr(module, "trace", lambda config: less)
    for name in PARTS[part]:
        d = diagrams.DIAGRAMS[name](tiny("lite"))
        assert part not in d.boxes and d.dot != whole[name], name


@pytest.mark.parametrize("n_head", [1, 2, 4])
def test_all_heads_share_one_key_and_value(n_head):
    d = diagrams.attention_mechanism(tiny("lite", n_head=n_head))
    for kind in ("self", "cross"):
        asks = [link for link in d.links if link["from"].startswith(f"{kind}.q:")]
        shared = [link for link in d.links if link["from"] == f"{kind}.kv"]
        assert len(asks) == n_head and len(shared) == 1
    assert any(link["from"] == "cross.memory" and link["to"] == "cross.kv" for link in d.links)


@pytest.mark.parametrize("preset", ["v1", "lite"])
def test_the_trace_is_what_a_real_pass_does(preset):
    config, seen = tiny(preset), {}
    model, told = opened(build(config)[0]), inputs(config, n_sets=1, n_cells=1, n_controls=64)
    if model.effect is not None:  # as in pretraining: nothing is known of mean effects
        model.effect.make_room({"target": (0,)})
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, given, out, name=name: seen.update({name: tuple(out.shape)}))
    with torch.no_grad():
        model(**told)
    traced = trace(config)
    assert {name: layer.output for name, layer in traced.items() if layer.output} == seen
    assert traced[""].parameters == sum(p.numel() for p in model.parameters())
    for layer in traced.values():
        if isinstance(layer.module, nn.Linear) and layer.output:
            assert layer.flops == 2 * math.prod(layer.input) * layer.module.out_features


def test_the_process_shows_the_schedules_own_numbers():
    v1 = diagrams.diffusion_process(PRESETS["v1"])
    p = mask_probabilities()
    for key in ("f1", "f2", "f4"):
        step = int(v1.boxes[key]["title"].removeprefix("t = "))
        assert v1.boxes[key]["lines"] == [f"{p[step]:.1%} hidden"]
    lite = diagrams.diffusion_process(PRESETS["lite"])
    counts = build(PRESETS["lite"])[1].counts(512)
    step = int(lite.boxes["r2"]["title"].removeprefix("step "))
    assert lite.boxes["r2"]["lines"] == [f"{512 - sum(counts[:step])} hidden"]
    squares = [cell for row in lite.boxes["r0"]["rows"] for cell in row]
    assert len(set(squares)) == 1 and len({cell for row in lite.boxes["r4"]["rows"] for cell in row}) > 2


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_process_of_few_steps_is_drawn_whole(steps):
    d = diagrams.diffusion_process(replace(tiny("lite"), diffusion=DiffusionConfig(sampling_steps=steps)))
    assert {key for rank in d.ranks for key in rank} <= set(d.boxes)
    assert sum(key.startswith("r") for key in d.boxes) == 1 + steps + 1


def test_numbers_and_shapes_read_well():
    assert [amount(n, "FLOP") for n in (128.08e9, 1.26e6, 2048, 7)] == [
        "128 GFLOP", "1.26 MFLOP", "2.05 kFLOP", "7 FLOP"]
    assert shape((1, 1, 2000, 512)) == "2,000 × 512" and shape((1, 1)) == "1"
