"""JSON and CSV."""

import pytest

from katcp.cli.formats import RecordWriter, json_text, print_json


def test_text():
    assert json_text("\u00b0C".encode()) == "\u00b0C"
    assert json_text(b"\xff\0") == {"base64": "/wA="}


def test_json_for_programs(capsys):
    print_json({"name": "caf\u00e9", "value": 1.5, "more": None})
    assert capsys.readouterr().out == '{"name": "caf\u00e9", "value": 1.5, "more": null}\n'


@pytest.mark.parametrize(
    ("form", "output"),
    [
        ("json", '[{"a": 1}, {"a": "x"}]\n'),
        ("jsonl", '{"a": 1}\n{"a": "x"}\n'),
        ("csv", "a\n1\nx\n"),
    ],
)
def test_all_records_at_once(form, output, capsys):
    RecordWriter(form, ["a"]).write_all([{"a": 1}, {"a": "x"}])
    assert capsys.readouterr().out == output


def test_cells_of_csv(capsys):
    values = [None, True, 1.5, 'two "words"', "a,b\nc", {"base64": "/wA="}]
    writer = RecordWriter("csv", [str(number) for number in range(6)])
    writer.write({str(number): value for number, value in enumerate(values)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == ',true,1.5,"two ""words""","a,b\\nc",\\xff\\x00'
