"""Files of one's own are read whole or refused by line; nothing is lost silently."""

import json
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs.errors import DataError
from envs.questions import load_source

ROWS = [
    {"id": "a", "text": "2 + 2?", "gold": ["4"], "verifier": "numeric"},
    {"id": "b", "text": "Capital of Peru?", "gold": ["Lima", "City of Lima"]},
    {"id": "c", "text": "Which?", "gold": ["x|y"], "choices": ["x|y", "z"]},
    {"id": "d", "text": "Best color?", "kind": "subjective"},
]


def written(tmp_path, name, content) -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def as_jsonl(tmp_path) -> str:
    return written(tmp_path, "q.jsonl", "\n".join(map(json.dumps, ROWS)))


def as_csv(tmp_path) -> str:
    return written(
        tmp_path,
        "q.csv",
        "id,text,gold,choices,kind,verifier\n"
        "a,2 + 2?,4,,,numeric\n"
        "b,Capital of Peru?,Lima | City of Lima,,,\n"
        'c,Which?,"[""x|y""]","[""x|y"", ""z""]",,\n'
        "d,Best color?,,,subjective,\n",
    )


def as_parquet(tmp_path) -> str:
    columns = {key: [row.get(key) for row in ROWS] for row in ROWS for key in row}
    pq.write_table(pa.Table.from_pydict(columns), tmp_path / "q.parquet")
    return str(tmp_path / "q.parquet")


@pytest.mark.parametrize("write", [as_jsonl, as_csv, as_parquet])
def test_the_same_questions_come_from_every_format(tmp_path, write):
    four, lima, which, color = load_source(write(tmp_path))
    assert (four.gold, four.verifier) == (("4",), "numeric")
    assert lima.gold == ("Lima", "City of Lima") and lima.verifier == "exact"
    assert which.verifier == "multiple_choice" and set(which.choices) == {"x|y", "z"}
    assert f"A) {which.choices[0]}\nB) {which.choices[1]}\n" in which.text
    assert color.kind == "subjective" and color.gold == ()


def test_options_that_the_text_shows_already_stay_as_they_are(tmp_path):
    text = "Which?\nA) z\nB) x"
    row = {"id": "a", "text": text, "gold": "x", "choices": ["z", "x"]}
    (question,) = load_source(written(tmp_path, "q.jsonl", json.dumps(row)))
    assert question.text == text and question.choices == ("z", "x")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_byte_order_marks_and_dos_lines_are_read(tmp_path, newline, bom):
    csv = bom + newline.join(["id,text,gold", "a,Où?,là", ""]).encode()
    jsonl = bom + newline.join([json.dumps(ROWS[0]), json.dumps(ROWS[1]), ""]).encode()
    assert load_source(written(tmp_path, "q.csv", csv))[0].text == "Où?"
    assert len(load_source(written(tmp_path, "q.jsonl", jsonl))) == 2


def test_a_line_separator_within_a_text_ends_no_line(tmp_path):
    row = {"id": "a", "text": "one\u2028two", "gold": ["x"]}
    path = written(tmp_path, "q.jsonl", json.dumps(row, ensure_ascii=False) + "\n")
    assert load_source(path)[0].text == "one\u2028two"


def test_a_cell_may_span_lines_and_later_rows_keep_their_line_number(tmp_path):
    content = 'id,text,gold\na,"one\ntwo",x\nb,"",y\n'
    with pytest.raises(DataError, match=r"line 4: text: Field required"):
        load_source(written(tmp_path, "q.csv", content))


@pytest.mark.parametrize("name", ["q.csv", "q.jsonl"])
def test_mixed_encodings_are_named_by_line_and_byte(tmp_path, name):
    good = {"q.csv": "a,Où?,là", "q.jsonl": '{"id": "a", "text": "Où?", "gold": ["là"]}'}[name]
    head = b"id,text,gold\n" if name == "q.csv" else b'{"id": "0", "text": "t", "gold": ["x"]}\n'
    content = head + good.encode() + b"\n" + good.replace('"a"', '"b"').encode("latin-1") + b"\n"
    byte = good.encode("latin-1").index(b"\xf9") + 1
    with pytest.raises(DataError, match=rf"line 3: byte {byte} of the line is 0xf9, no UTF-8"):
        load_source(written(tmp_path, name, content))


def test_utf_16_is_recognised(tmp_path):
    with pytest.raises(DataError, match="UTF-16; save it as UTF-8"):
        load_source(written(tmp_path, "q.csv", "id,text,gold\na,b,c\n".encode("utf-16")))


def test_all_problems_are_counted_and_the_first_are_named(tmp_path):
    rows = [
        {"id": "a", "text": "t", "gold": ["x"]},
        {"id": "a", "text": "t", "gold": ["x"]},
        {"id": "c", "text": "t", "gold": ["w"], "choices": ["y", "z"]},
        *({"id": f"d{i}", "text": "t"} for i in range(7)),
    ]
    path = written(tmp_path, "q.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError) as caught:
        load_source(path)
    message = str(caught.value)
    assert message.startswith("9 problems")
    assert "line 2: id 'a' stands in line 1 already" in message
    assert "line 3: gold 'w' is not among the choices" in message
    assert "line 5" in message and "line 8" not in message and "4 more problems" in message


@pytest.mark.parametrize("name", ["q.csv", "q.jsonl"])
def test_one_bad_row_of_100_001_is_named_in_seconds(tmp_path, name):
    if name == "q.csv":
        lines = ["id,text,gold", *(f"q{i},What is {i}?,answer {i}" for i in range(100_001))]
        lines[77_778] = "q5,What?,x"
    else:
        lines = [f'{{"id": "q{i}", "text": "t", "gold": ["{i}"]}}' for i in range(100_001)]
        lines[77_777] = '{"id": "q5", "text": "t", "gold": ["x"]}'
    expected = 77_779 if name == "q.csv" else 77_778
    path = written(tmp_path, name, "\n".join(lines))
    start = time.process_time()
    with pytest.raises(DataError, match=rf"line {expected}: id 'q5' stands in line \d already"):
        load_source(path)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.csv", "", "holds no question"),
        ("q.jsonl", "\n\n", "holds no question"),
        ("q.csv", "id,text,gold\n", "holds no question"),
        ("q.csv", "id,question,gold\na,b,c\n", "line 1: no column text"),
        ("q.csv", "id,text,gold,colour\na,b,c,d\n", "unknown column 'colour'"),
        ("q.csv", "id,text,gold\na,b\n", "line 2: fewer cells"),
        ("q.csv", "id,text,gold\na,b,c,d\n", "line 2: more cells"),
        ("q.csv", 'id,text,gold\na,b,"[1, "\n', "line 2: gold: not a JSON list"),
        ("q.csv", 'id,text,gold\na,"b,c\n', "line 2: not readable as CSV"),
        ("q.jsonl", "[1]", "line 1: not a JSON object"),
        (
            "q.jsonl",
            '{"id": "a", "text": "t", "gold": ["no idea"], "verifier": "numeric"}',
            "no num",
        ),
        ("q.jsonl", '{"id": "a", "text": "t", "gold": ["I do not know"]}', "read as 'abstain'"),
        ("q.parquet", "no parquet", "no readable Parquet"),
        ("q.txt", "hello", "no question source"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, name, content, message):
    with pytest.raises(Exception, match=message) as caught:
        load_source(written(tmp_path, name, content))
    assert type(caught.value).__name__ in ("DataError", "ConfigError")


def test_parquet_rows_and_missing_columns_are_named(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"id": "a", "question": "t"}]), tmp_path / "q.parquet")
    with pytest.raises(DataError, match="has no column text"):
        load_source(str(tmp_path / "q.parquet"))
    rows = [{"id": "a", "text": "t", "gold": "x"}, {"id": "b", "text": "t", "gold": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    with pytest.raises(DataError, match="row 2: kind truth needs gold"):
        load_source(str(tmp_path / "q.parquet"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*gone\.csv"):
        load_source(str(tmp_path / "gone.csv"))
