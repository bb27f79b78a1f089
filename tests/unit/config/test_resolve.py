"""resolve: which source wins, what is refused, and that nothing but option errors ever comes out."""

from __future__ import annotations

import string

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eyas.config import OptionError, OptionValueError, TrainOptions, UnknownOptionError, option_names, resolve


@pytest.fixture
def option_file(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_later_sources_win_and_are_remembered(option_file):
    file = option_file("epochs: 2\nbatch: 2\nseed: 2\n")
    options = resolve(
        recipe={"epochs": 1, "batch": 1, "seed": 1, "mosaic": 0.5},
        file=file,
        call={"epochs": 3, "batch": 3},
        cli={"epochs": "4"},
    )
    found = {name: (options.get(name), options.source(name)) for name in ("epochs", "batch", "seed", "mosaic", "box")}
    assert found == {
        "epochs": (4, "command line"),
        "batch": (3, "call"),
        "seed": (2, "file"),
        "mosaic": (0.5, "recipe"),
        "box": (7.5, "default"),
    }
    assert [options.is_typed(name) for name in found] == [True, True, True, False, False]


def test_nothing_given_is_the_defaults():
    assert resolve().to_dict() == TrainOptions().to_dict()


@pytest.mark.parametrize("layer", ["call", "cli"])
def test_cfg_names_the_option_file(option_file, layer):
    options = resolve(**{layer: {"cfg": str(option_file("epochs: 2\n")), "batch": 4}})
    assert (options.epochs, options.source("epochs"), options.batch, options.cfg) == (2, "file", 4, None)


def test_one_option_file_may_be_named_twice(option_file):
    file = option_file("epochs: 2\n")
    assert resolve(file=file, call={"cfg": str(file)}, cli={"cfg": str(file)}).epochs == 2


def test_a_saved_run_can_be_used_as_option_file(option_file):
    first = resolve(call={"epochs": 3, "schedule": "flat-cosine", "scale": (0.5, 1.5)})
    again = resolve(file=option_file(yaml.safe_dump(first.to_dict())))
    assert again.to_dict() == first.to_dict()


def test_errors_name_file_and_line(option_file):
    with pytest.raises(OptionValueError, match=r"run\.yaml:3"):
        resolve(file=option_file("# my run\nbatch: 4\nepochs: 0\n"))
    with pytest.raises(UnknownOptionError, match=r"'epochz' .*run\.yaml:2.*epochs"):
        resolve(file=option_file("batch: 4\nepochz: 1\n"))
    with pytest.raises(OptionValueError, match=r"run\.yaml:2: key 'batch' was given in line 1 already"):
        resolve(file=option_file("batch: 4\nbatch: 5\n"))


@pytest.mark.parametrize(
    "text", ["[1, 2]", "epochs", "a: [", "? [x]\n: 1", "epochs: &a [*a]", "\x00", "cfg: other.yaml"]
)
def test_files_that_hold_no_options_are_refused(option_file, text):
    with pytest.raises(OptionError, match=r"run\.yaml"):
        resolve(file=option_file(text))


def test_missing_and_unreadable_files_are_option_errors(tmp_path):
    with pytest.raises(OptionValueError, match="no such file"):
        resolve(file=tmp_path / "none.yaml")
    with pytest.raises(OptionValueError, match="cannot be read"):
        resolve(file=tmp_path)
    with pytest.raises(OptionValueError, match="only one option file"):
        resolve(file=tmp_path / "a.yaml", call={"cfg": "b.yaml"})


def test_tags_in_a_file_build_nothing(option_file):
    with pytest.raises(OptionError):
        resolve(file=option_file("epochs: !!python/object/apply:os.getcwd []\n"))


def test_command_line_texts_are_read_by_the_kind_of_the_option():
    options = resolve(
        cli={
            "name": "007",
            "lr0": "1e-3",
            "classes": "[0, 2]",
            "save": "false",
            "conf": "none",
            "data": "{names: {0: a}}",
        }
    )
    assert (options.name, options.lr0, options.classes, options.save, options.conf) == (
        "007",
        0.001,
        [0, 2],
        False,
        None,
    )
    assert options.data == {"names": {0: "a"}}


@pytest.mark.parametrize("text", ["[1, 2", "'a", "{a: [}", "[" * 5000])
def test_unreadable_command_line_values_name_the_option(text):
    with pytest.raises(OptionValueError, match=r"^classes="):
        resolve(cli={"classes": text})


@pytest.mark.parametrize(("command", "name"), [("val", "lr0"), ("predict", "mosaic"), ("train", "split")])
def test_options_without_effect_on_a_command_are_refused(command, name):
    for layer in ("call", "cli"):
        with pytest.raises(UnknownOptionError, match=f"'{name}'.* has no effect on {command}"):
            resolve(**{layer: {name: TrainOptions().get(name)}}, command=command)


def test_an_option_file_may_serve_several_commands(option_file):
    assert resolve(file=option_file("lr0: 0.1\nbatch: 4\n"), command="val").batch == 4


@pytest.mark.parametrize(
    ("call", "void"),
    [
        ({"ema": False, "ema_tau": 100}, "ema_tau"),
        ({"val": False, "patience": 5}, "patience"),
        ({"val": False, "stop": {"metric": "f1"}}, "stop"),
        ({"stop": {"metric": "f1"}, "patience": 5}, "patience"),
        ({"schedule": {"name": "StepLR", "step_size": 3}, "lrf": 0.5}, "lrf"),
        ({"freeze_epochs": 2}, "freeze_epochs"),
        ({"freeze_ramp": 2}, "freeze_ramp"),
        ({"freeze_norm": "update"}, "freeze_norm"),
        ({"clip_grad_norm": 0, "clip_per_group": True}, "clip_per_group"),
        ({"class_weights_normalize": False}, "class_weights_normalize"),
        ({"class_weights_cap": 2.0}, "class_weights_cap"),
        ({"class_weights": [1.0, 2.0], "class_weights_cap": 2.0}, "class_weights_cap"),
        ({"sampler_threshold": 0.5}, "sampler_threshold"),
        ({"sampler": "balanced", "sampler_threshold": 0.5}, "sampler_threshold"),
        ({"save_dir": "a", "project": "b"}, "project"),
        ({"warmup_epochs": 0, "warmup_bias_lr": 0.5}, "warmup_bias_lr"),
        ({"epochs": 3, "time": 1.0}, "epochs"),
        ({"iou": 0.5}, "iou"),
        ({"iou": 0.5, "nms": False}, "iou"),
        ({"ema": False, "ema_decay": 0.9}, "ema_decay"),
        ({"ema": False, "ema_share": 0.1}, "ema_share"),
        ({"ema_decay": 0.9, "ema_share": 0.1}, "ema_share"),
        ({"ema_tau": 9.0, "ema_share": 0.1}, "ema_share"),
        ({"val": False, "val_every": 2}, "val_every"),
        ({"save_conf": True}, "save_conf"),
        ({"save": False, "save_period": 1}, "save_period"),
        ({"save_dir": "a", "name": "b"}, "name"),
        ({"warmup_epochs": 0, "warmup_momentum": 0.5}, "warmup_momentum"),
        ({"mosaic": 0, "close_mosaic": 3}, "close_mosaic"),
    ],
)
def test_an_option_that_another_makes_void_is_an_error(call, void):
    with pytest.raises(OptionValueError, match=f"^{void}=.* has no effect: "):
        resolve(call=call)


def test_an_option_typed_at_its_default_changes_nothing_and_so_is_no_error():
    """Files that spell everything out, such as those of a saved run, may hold defaults that another option replaces."""
    defaults = TrainOptions().to_dict()
    voided = {
        "epochs": {"time": 1.0},
        "iou": {},
        "ema_decay": {"ema": False},
        "val_every": {"val": False},
        "patience": {"val": False},
        "freeze_epochs": {},
        "save_conf": {},
        "save_period": {"save": False},
        "warmup_momentum": {"warmup_epochs": 0},
        "close_mosaic": {"mosaic": 0},
        "name": {"save_dir": "runs/x"},
    }
    for name, others in voided.items():
        options = resolve(call={name: defaults[name], **others})
        assert options.get(name) == defaults[name]
    usable = set(option_names("train")) - {"cfg"}
    assert resolve(call={name: defaults[name] for name in usable}).to_dict() == defaults


def test_effective_combinations_pass():
    resolve(call={"iou": 0.5, "nms": True, "save_txt": True, "save_conf": True, "mosaic": 0, "close_mosaic": 0})
    resolve(call={"mosaic": 0, "multi_scale": 0.2, "close_mosaic": 3})
    resolve(call={"class_weights": "balanced", "class_weights_cap": 2.0, "class_weights_normalize": False})
    resolve(call={"sampler": "repeat", "sampler_threshold": 0.5})
    resolve(call={"freeze": "backbone", "freeze_epochs": 2, "freeze_ramp": 1})


def test_a_recipe_value_that_the_user_voids_is_no_error():
    assert resolve(recipe={"ema_decay": 0.9}, call={"ema": False}).ema is False


def test_cosine_spellings_across_sources():
    options = resolve(recipe={"schedule": "flat-cosine"}, cli={"cos_lr": "true"})
    assert (options.schedule, options.cos_lr, options.source("schedule")) == ("cosine", True, "command line")
    options = resolve(recipe={"cos_lr": True}, call={"schedule": "linear"})
    assert (options.schedule, options.cos_lr) == ("linear", False)
    with pytest.raises(OptionValueError, match="contradicts"):
        resolve(call={"schedule": "linear", "cos_lr": True})


NAMES = st.one_of(
    st.sampled_from(option_names()),
    st.text(max_size=12),
    st.text(string.ascii_lowercase + "_", max_size=12),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5), st.just(10**4000)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FREE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def options_or_error(**sources):
    """The options, or None after an option error whose message a person can read; anything else propagates."""
    try:
        options = resolve(**sources)
    except OptionError as error:
        assert str(error)
        assert all(len(line) < 600 for line in str(error).splitlines())
        return None
    assert TrainOptions.from_dict(options.to_dict(), options.sources()).to_dict() == options.to_dict()
    return options


@FREE
@given(st.dictionaries(NAMES | st.integers() | st.none(), VALUES, max_size=4))
@example({"cfg": "\0"})
@example({"classes": [10**4000]})
@example({"data": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}}}})
def test_free_form_calls_give_options_or_an_option_error(call):
    options_or_error(call=call)


@FREE
@given(st.dictionaries(NAMES, st.text(max_size=20) | st.from_regex(r"[-0-9.eE\[\]{}:, ]{0,8}"), max_size=4))
@example({"cfg": "\0"})
@example({"scale": "'\\UFFFFFFFF'"})
def test_free_form_command_lines_give_options_or_an_option_error(cli):
    options_or_error(cli=cli)


LINES = st.lists(st.tuples(NAMES, st.text(max_size=12) | st.integers() | st.floats() | st.booleans()), max_size=3)


@FREE
@given(st.text(max_size=60) | LINES.map(lambda lines: "\n".join(f"{name}: {value}" for name, value in lines)))
def test_free_form_files_give_options_or_an_option_error(tmp_path, text):
    path = tmp_path / "free.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    options_or_error(file=path)
