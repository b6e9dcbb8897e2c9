import pytest

from retina_plugin.workbench.compare.contenders import Contender, parse_contender, parse_contenders


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "my config.yaml"
    file.write_text("VERSION: 2\n")
    return file


def test_label_path_and_overrides(config):
    parsed = parse_contender(f"slow='{config}' SOLVER.BASE_LR=0.1 \"DATASETS.TEST=('a', 'b')\"")
    assert parsed == Contender("slow", config, ("SOLVER.BASE_LR=0.1", "DATASETS.TEST=('a', 'b')"))


def test_the_stem_is_the_label_where_none_is_given(config):
    assert parse_contender(f"'{config}'") == Contender("my config", config)


@pytest.mark.parametrize("text", ["", "'", "no_such.yaml", "a=", "../up={0}", "a/b={0}", "..={0}"])
def test_what_names_no_contender_is_refused_with_the_text(config, text):
    text = text.format(f"'{config}'")
    with pytest.raises(ValueError, match=r"no such config file|names no config|label") as error:
        parse_contender(text)
    assert repr(text) in str(error.value)


def test_one_label_for_two_is_refused(config):
    with pytest.raises(ValueError, match="two contenders are called 'my config'"):
        parse_contenders([f"'{config}'", f"'{config}' SOLVER.BASE_LR=1.0"])
    assert len(parse_contenders([f"'{config}'", f"b='{config}'"])) == 2
