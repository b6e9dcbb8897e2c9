"""The command line of train_net.py and `retina train` against Detectron2's own parser."""

import pytest
from detectron2.engine import default_argument_parser

from retina_plugin.engine.arguments import argument_parser, parse_arguments


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("VERSION: 2\n")
    return str(path)


def parse(*words):
    return parse_arguments(words, prog="retina train")


def actions(parser):
    return {action.dest: action for action in parser._actions}


def test_every_argument_of_detectron2_is_there():
    stock, own = actions(default_argument_parser()), actions(argument_parser())
    assert stock.keys() | {"allow_unsafe_yaml", "extensions"} == own.keys()
    for dest, theirs in stock.items():
        ours = own[dest]
        assert ours.option_strings == theirs.option_strings
        if dest not in ("config_file", "dist_url", "opts", "help"):
            assert (ours.type, ours.const, ours.nargs, ours.default) == (
                theirs.type,
                theirs.const,
                theirs.nargs,
                theirs.default,
            )
        assert ours.help, dest


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--eval-only", "MODEL.WEIGHTS", "model.pth"],
        ["--num-gpus", "8", "--resume"],
        ["--num-machines", "2", "--machine-rank", "1", "--dist-url", "tcp://x:1"],
        ["SOLVER.BASE_LR", "-1e-3", "MODEL.PIXEL_MEAN", "[1, 2]", "A.B", "-.5", "C", "-2"],
    ],
)
def test_what_detectron2_reads_is_read_alike(words, config):
    words = [words[0], *words[1:]] if words else []
    options = ["--config-file", config] if words else []
    stock = default_argument_parser().parse_args([*options, *words])
    own = parse(*options, *words)
    for name, value in vars(stock).items():
        if name == "dist_url" and "--dist-url" not in words:
            continue
        mine = getattr(own, name)
        if name == "opts":  # KEY=VALUE is KEY VALUE, see load_config
            mine = [part for word in mine for part in word.split("=")]
        assert mine == value, name


def test_on_one_machine_workers_meet_at_a_free_port():
    assert parse().dist_url == "auto"
    assert parse("--dist-url", "tcp://x:1").dist_url == "tcp://x:1"


@pytest.mark.parametrize(
    "words",
    [
        "{config} --num-gpus 2 SOLVER.MAX_ITER 10 --resume A=1",
        "--num-gpus 2 {config} SOLVER.MAX_ITER 10 A=1 --resume",
        "--resume --num-gpus 2 --config-file {config} SOLVER.MAX_ITER 10 A=1",
        "SOLVER.MAX_ITER 10 --config-file {config} A=1 --resume --num-gpus 2",
    ],
)
def test_the_config_may_be_the_first_word_and_options_stand_anywhere(words, config):
    arguments = parse(*words.format(config=config).split())
    assert (arguments.config_file, arguments.num_gpus, arguments.resume) == (config, 2, True)
    assert arguments.opts == ["SOLVER.MAX_ITER", "10", "A=1"]


def test_a_config_by_its_name():
    arguments = parse("modern/atss_R_50_FPN_1x", "SOLVER.MAX_ITER", "10")
    assert arguments.config_file.endswith("configs/modern/atss_R_50_FPN_1x.yaml")
    assert arguments.opts == ["SOLVER.MAX_ITER", "10"]


def test_without_a_config_the_words_are_overrides():
    assert parse("VIS_PERIOD", "7").opts == ["VIS_PERIOD", "7"]
    assert parse("train.max_iter=7").opts == ["train.max_iter=7"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no_such_config"], "no_such_config"),
        (["--config-file", "no_such_config"], "argument --config-file"),
        (["--no-such-option"], "--no-such-option"),
        (["--num-gpus", "two"], "invalid int value: 'two'"),
    ],
)
def test_mistakes_end_with_exit_code_2(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        parse(*words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
