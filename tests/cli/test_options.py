"""The command line: words, options, and the types of arguments."""

import argparse

import pytest

from katcp import cli
from katcp.cli.options import parse, parse_count, parse_positive, parse_size


def parse_line(line):
    return parse(*cli._make_parser(), line.split())


@pytest.mark.parametrize(
    ("line", "words", "output"),
    [
        ("request echo a", ["echo", "a"], "table"),
        ("request -o json echo a", ["echo", "a"], "json"),
        ("request echo -o json a b", ["echo", "a", "b"], "json"),
        ("request echo a -ojson", ["echo", "a"], "json"),
        ("request echo -5 -1.5e3 -.5", ["echo", "-5", "-1.5e3", "-.5"], "table"),
        ("request echo - --output json", ["echo", "-"], "json"),
        ("request echo -- -x -o --", ["echo", "-x", "-o", "--"], "table"),
        ("request -o json -- echo", ["echo"], "json"),
        ("request", [], "table"),
    ],
)
def test_words_and_options(line, words, output):
    options = parse_line(line)
    assert (options.words, options.output) == (words, output)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("sensor", "unknown command 'sensor'; did you mean sensors?"),
        ("xyzzy", "unknown command 'xyzzy'; see katcp --help"),
        ("help wach", "unknown command 'wach'; did you mean watch?"),
        (
            "sensors --tiemout 3",
            "unknown option --tiemout; did you mean --timeout?; see katcp sensors --help",
        ),
        (
            "request echo -x",
            "unknown option -x; put -- before words that begin with a dash; "
            "see katcp request --help",
        ),
        ("--fast", "unknown option --fast; see katcp --help"),
        ("watch --period 1 --event", "argument --event: not allowed with argument --period"),
        ("log --timeout", "argument --timeout: expected one argument; see katcp log --help"),
    ],
)
def test_errors(line, error, capsys):
    assert cli.main(line.split()) == 2
    assert capsys.readouterr().err.startswith(f"katcp: {error}")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1s", ""])
def test_not_positive(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number greater than 0"):
        parse_positive(text)


@pytest.mark.parametrize("text", ["-1", "1.5", "1_0", ""])
def test_not_a_count(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("512k", 512 * 1024), ("8M", 8 << 20), ("2G", 2 << 30)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0k", "-1", "1.5M", "8 M", "8X"])
def test_not_a_size(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size such as"):
        parse_size(text)
