"""The figure folder: complete, the same every time, described in words, and in step with what is committed."""

import json
import re
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import opened, tiny, toy_screen
from PIL import Image

from cdt_lite.errors import CDTError, CDTWarning
from cdt_lite.figures import folder as figures
from cdt_lite.figures import guide, sketch
from cdt_lite.figures.charts import CHARTS, table
from cdt_lite.figures.diagrams import DIAGRAMS
from cdt_lite.model import PRESETS
from cdt_lite.model.config import ModelConfig
from cdt_lite.training.capsule import load_capsule
from cdt_lite.training.checkpoint import read_config
from cdt_lite.training.start import start

COMMITTED = Path(__file__).parents[1] / "figures"
FIGURES = [*DIAGRAMS, *CHARTS]
MEASURED = ["attention_mechanism_measured", "diffusion_process_measured"]
SECTIONS = ["Key components", "Conditioning types", "Training strategy", "Usage notes", "Implementation details"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of a small v1, with the measured panels of a small model; a missing glyph is an error."""
    screen = toy_screen()
    screen.uns["screen"] = {"name": "toy", "attribution": "Nobody et al. 2020"}
    capsule = start(tiny("lite"), screen)
    capsule.trained_targets = ["G3", "G5"]
    opened(capsule.model)
    folder = tmp_path_factory.mktemp("made")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Gg]lyph.*")
        files = figures.make_figures(tiny("v1"), folder, capsule, screen)
    assert sorted(files) == sorted(folder.iterdir())
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The folder of a small v1 without a trained model."""
    folder = tmp_path_factory.mktemp("bare") / "new" / "folder"
    figures.make_figures(tiny("v1"), folder)
    return folder


def test_every_file_of_the_original_document_is_there(made):
    document = {"model_config.json", "model_config.txt", "README.md", "parameter_breakdown.txt",
                "computational_analysis.txt", *(f"{name}.png" for name in FIGURES)}
    ours = {"denoising.gif", *(f"{name}.dot" for name in DIAGRAMS), *(f"{name}.svg" for name in FIGURES + MEASURED),
            *(f"{name}.json" for name in FIGURES), *(f"{name}.png" for name in MEASURED)}
    assert document | ours == {path.name for path in made.iterdir()}


def test_the_documents_configuration_keys_are_there(made):
    found = json.loads((made / "model_config.json").read_text(encoding="utf-8"))
    assert {"dim", "n_head", "n_layer", "ffn_mult", "vocab_size", "n_genes", "n_total_genes", "gene_embed_dim",
            "perturb_sign_dim", "perturb_magnitude_dim", "magnitude_clip", "control_set_encoder_layers",
            "control_set_dim_hidden", "control_set_dim_out", "n_timesteps", "mask_ratio", "schedule", "batch_size",
            "learning_rate", "weight_decay", "warmup_steps", "pretrain_epochs", "finetune_epochs", "log_interval",
            "checkpoint_interval"} <= set(found)
    assert (found["n_timesteps"], found["mask_ratio"], found["log_interval"]) == (10, 0.3, 50)
    assert read_config(found["everything"]) == tiny("v1")
    assert "mask_ratio" not in figures.config_table(tiny("lite"))  # ours has none


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_in_words_what_it_shows(made, name):
    words = [e.text for e in ET.parse(made / f"{name}.svg").iter() if e.tag.endswith(("desc", "description"))]
    data = json.loads((made / f"{name}.json").read_text(encoding="utf-8"))
    assert re.search(r"\d", data["alt"]) and words == [data["alt"]]
    section = section_of(made, name)
    assert f"![{data['alt']}]({name}.png)" in section  # the same words
    assert section.count("\n|") >= 4  # and a table


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_panel_stands_below_its_diagram(made, name):
    diagram = name.removesuffix("_measured")
    words = [e.text for e in ET.parse(made / f"{name}.svg").iter() if e.tag.endswith("description")]
    section = section_of(made, diagram)
    assert section.index(f"({diagram}.png)") < section.index(f"![{words[0]}]({name}.png)")
    assert f"[measured.svg]({name}.svg)" in (made / "README.md").read_text(encoding="utf-8")


def section_of(made: Path, name: str) -> str:
    readme = (made / "README.md").read_text(encoding="utf-8")
    return readme.split(f"### {name}\n", 1)[1].split("\n### ")[0]


@pytest.mark.parametrize("name", FIGURES + MEASURED)
def test_pictures_are_small_files_at_200_dots_an_inch(made, name):
    assert all((made / f"{name}{form}").stat().st_size < 1e6 for form in (".png", ".svg"))
    picture = Image.open(made / f"{name}.png")
    assert round(picture.info["dpi"][0]) == 200 and len(picture.convert("RGB").getcolors(1 << 24)) > 8  # not empty


def test_a_second_run_gives_the_same_bytes(bare, tmp_path):
    again = figures.make_figures(tiny("v1"), tmp_path)
    for path in again:
        assert path.read_bytes() == (bare / path.name).read_bytes(), path.name


def test_without_a_trained_model_the_guide_says_which_command_makes_one(bare, made):
    assert not (bare / "denoising.gif").exists() and "`cdt-lite capsule`" in (bare / "README.md").read_text("utf-8")
    assert "`cdt-lite capsule`" not in (made / "README.md").read_text("utf-8")
    assert "measured" in json.loads((made / "attention_mechanism.json").read_text("utf-8"))
    assert "measured" not in json.loads((bare / "attention_mechanism.json").read_text("utf-8"))


def test_without_dot_the_text_is_still_written_and_it_says_so(monkeypatch, tmp_path):
    def missing():
        raise CDTError("no program lays out diagrams: pip install graphviz-pure.")
    monkeypatch.setattr(sketch, "binary", missing)
    with pytest.warns(CDTWarning, match="graphviz-pure.*Only DOT and JSON"):
        names = {p.name for p in figures.make_figures(tiny("lite"), tmp_path)}
    assert "layer_breakdown.dot" in names and "layer_breakdown.svg" not in names and "parameter_breakdown.png" in names
    assert "layer_breakdown.png" not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CDTError, match="cannot write figures into .*choose another folder"):
        figures.make_figures(tiny("v1"), tmp_path / "file")


def test_heads_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(CDTError, match="n_head must divide dim"):
        ModelConfig(dim=512, n_head=7)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_claim_has_its_numbers(preset):
    text = guide.guide(PRESETS[preset], {}, measured=False)
    assert "{" not in text and "nan" not in text.lower()
    sections = ["Generated files", "Model overview", *SECTIONS, "The figures"]
    places = [text.index(f"## {section}") for section in sections]
    assert places == sorted(places)  # the original's order
    if preset == "v1":
        for number in ("24,752,265", "27,374,473", "26,174,601", "143, 224, 282, 314, 315, 286, 229, 150, 57", "128.08",
                       "4,098.5", "1,427.1", "0.44", "192 bytes a cell and gene²", "8.6%"):
            assert number in text, number


def test_the_date_is_the_releases():
    citation = (COMMITTED.parent / "CITATION.cff").read_text(encoding="utf-8")
    dated = re.search(r"date-released: '?([\d-]+)", citation)
    assert dated is None or dated[1] == guide.RELEASED
    assert guide.RELEASED in guide.guide(PRESETS["v1"], {}, measured=False)


# -------------------------------------------------------------------------------- what is committed

committed = pytest.mark.skipif(not (COMMITTED / "README.md").exists(), reason="figures/ was not drawn yet")


def read(name: str) -> dict:
    return json.loads((COMMITTED / name).read_text(encoding="utf-8"))


@committed
@pytest.mark.parametrize("name", DIAGRAMS)
def test_committed_diagrams_are_what_the_code_draws_now(name):
    drawn = DIAGRAMS[name](PRESETS["v1"])
    assert (COMMITTED / f"{name}.dot").read_text(encoding="utf-8") == drawn.dot, "run: cdt-lite figures"
    found = read(f"{name}.json")
    assert found["alt"] == drawn.alt
    assert {key: found[key] for key in ("boxes", "links")} == {key: drawn.data[key] for key in ("boxes", "links")}


@committed
@pytest.mark.parametrize("name", CHARTS)
def test_committed_charts_are_what_the_code_computes_now(name):
    _, data, text = CHARTS[name](PRESETS["v1"])
    assert {"name": name, **json.loads(json.dumps(data))} == read(f"{name}.json"), "run: cdt-lite figures"
    assert (COMMITTED / f"{name}.txt").read_text(encoding="utf-8") == text


@committed
def test_committed_panels_show_the_capsule_that_ships(real_screen_dir):
    from cdt_lite.data.screens import load_screen
    from cdt_lite.figures.measured import attention_panel, fingerprint

    screen = load_screen("papalexi2021")
    capsule, found = load_capsule(screen), read("attention_mechanism.json")["measured"]
    shown = {found["capsule"], read("diffusion_process.json")["measured"]["capsule"]}
    assert shown == {fingerprint(capsule)}, "the capsule was made again; run: cdt-lite figures"
    now = attention_panel(capsule, screen).data
    assert (now["cell"], now["genes"]) == (found["cell"], found["genes"])
    assert np.allclose(now["self"], found["self"], atol=0.01) and np.allclose(now["cross"], found["cross"], atol=0.01)


def test_another_preset_gives_other_text(bare):
    other = table("x", {k: str(v) for k, v in figures.config_table(replace(tiny("v1"), name="other")).items()})
    assert "other" in other and "other" not in (bare / "model_config.txt").read_text(encoding="utf-8")
