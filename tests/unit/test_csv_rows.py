"""CSV read as a stream: every fault is told with its line."""

import csv

import pytest

from course_lib.data import DataDamaged
from course_lib.data._csv_rows import read_rows

COLUMNS = ("name", "value")


def write(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_come_with_the_line_they_begin_in_and_in_the_order_asked_for(tmp_path):
    path = write(tmp_path, 'value,name\n1,"a, b"\n\n2,"two\nlines"\n3,"a ""quote"""\n')
    assert list(read_rows(path, COLUMNS)) == [
        (2, ["a, b", "1"]),
        (4, ["two\nlines", "2"]),
        (6, ['a "quote"', "3"]),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_make_no_difference(tmp_path, start, end):
    path = write(tmp_path, start + end.join(["name,value", "é,1", "…,2", ""]))
    assert [row for _, row in read_rows(path, COLUMNS)] == [["é", "1"], ["…", "2"]]


def test_a_header_may_be_missing_where_the_caller_says_so(tmp_path):
    plain = write(tmp_path, "\na,1\nb,2\n")
    assert list(read_rows(plain, COLUMNS, header_optional=True)) == [
        (2, ["a", "1"]),
        (3, ["b", "2"]),
    ]
    with pytest.raises(DataDamaged, match="line 1 is not the header"):
        list(read_rows(plain, COLUMNS))
    headed = write(tmp_path, "value,name\n1,a\n")
    assert list(read_rows(headed, COLUMNS, header_optional=True)) == [(2, ["a", "1"])]
    for text, fault in (
        ("name,Value\na,1\n", r"wrong columns \(missing: value; unknown: Value\)"),
        ("a,1,2\nb,3\n", "line 1 has 3 fields instead of 2"),
        ("a,1\nb", r"line 2 has 1 fields instead of 2 \(the last row: the file was cut off\)"),
        ("\n", "it is empty"),
    ):
        with pytest.raises(DataDamaged, match=fault):
            list(read_rows(write(tmp_path, text), COLUMNS, header_optional=True))


def test_a_table_may_have_no_rows(tmp_path):
    assert list(read_rows(write(tmp_path, "name,value\n"), COLUMNS)) == []


def test_a_csv_writer_is_read_back(tmp_path):
    rows = [['"', "1"], ['a"b', "2"], ["x\r\ny", "3"], ["", "4"], [" , ", "5"]]
    path = tmp_path / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    assert [row for _, row in read_rows(path, COLUMNS)] == rows


FAULTS = {
    "nothing": (b"", "it is empty"),
    "blank lines": (b"\n\n\n", "it is empty"),
    "gzip": (b"\x1f\x8b\x08", "it is compressed with gzip: unpack it"),
    "zip": (b"PK\x03\x04", "it is a zip archive: unpack it"),
    "page": (
        b"\n <!DOCTYPE html>",
        "it is a web page (a login or an error page, perhaps), not CSV",
    ),
    "page with mark": (b"\xef\xbb\xbf<html>", "it is a web page"),
    "UTF-16": ("name,value\n".encode("utf-16"), "it is UTF-16 text: it must be UTF-8"),
    "Latin-1": (
        b"name,value\na,1\n\xe9t\xe9,2\n",
        "line 3 is not UTF-8 text: it holds the byte 0xe9",
    ),
    "Latin-1 far behind": (
        b"name,value\n" + b"a,1\n" * 50_000 + b"\xe9,2\n",
        "line 50,002 is not UTF-8 text: it holds the byte 0xe9",
    ),
    "cut in a character": (
        b"name,value\na,1\n" + "é".encode()[:1],
        "line 3 is not UTF-8 text: it holds the byte 0xc3",
    ),
    "no header": (
        b"a,1\nb,2\n",
        "line 1 is not the header; it should name name, value, not a, 1",
    ),
    "a column too few": (b"name\na\n", "wrong columns (missing: value)"),
    "a column too many": (
        b"name,value,more\na,1,2\n",
        "wrong columns (unknown: more); it should name name, value",
    ),
    "a row number": (b",name,value\n0,a,1\n", "wrong columns (unknown: (no name))"),
    "a column twice": (b"name,value,name\na,1,b\n", "wrong columns (repeated: name)"),
    "semicolons": (b"name;value\na;1\n", "its fields are separated by ';' instead of ','"),
    "a field too many": (b"name,value\na,1,2\nb,3\n", "line 2 has 3 fields instead of 2\n"),
    "a field too few": (b"name,value\na,1\nb\nc,3\n", "line 3 has 1 fields instead of 2\n"),
    "cut between fields": (
        b'name,value\na,1\n"b"',
        "line 3 has 1 fields instead of 2 (the last row: the file was cut off)\n",
    ),
    "cut in a quote": (
        b'name,value\na,1\n\n"b and more',
        "the row that begins in line 4 is not CSV: unexpected end of data (a quote that is never",
    ),
    "a lost quote": (
        b'name,value\n"a,1\n"b",2\n"c",3\n',
        "the row that begins in line 2 is not CSV: ',' expected after '\"'",
    ),
    "a quote that takes all": (
        b'name,value\na,1\n"b' + b"x,2\n" * 40_000,
        "the row that begins in line 3 is not CSV: field larger than field limit",
    ),
}


@pytest.mark.parametrize(("content", "fault"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_is_told_with_its_place_and_the_way_out(tmp_path, content, fault):
    path = write(tmp_path, content)
    with pytest.raises(DataDamaged) as caught:
        list(read_rows(path, COLUMNS))
    story = str(caught.value)
    assert story.startswith(f"{path}: ")
    assert fault in story
    assert "Put a fresh copy there, or delete table.csv" in story


def test_what_cannot_be_read_is_damage_too(tmp_path):
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere")
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "gone.csv", "No such file")):
        with pytest.raises(DataDamaged, match=f"it cannot be read: {reason}"):
            list(read_rows(path, COLUMNS))
