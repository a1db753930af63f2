import os
import socket
import sys

import loopback_publisher as answers
import pytest
from loopback_publisher import BODY, SHA256, Publisher

from course_lib.data._download import CONNECT_TIMEOUT, READ_TIMEOUT, DownloadFailed, download


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def publisher():
    with Publisher() as running:
        yield running


def fetch(url, to, **changed):
    expected = {"sha256": SHA256, "size": len(BODY), "title": "numbers"}
    download(url, to, **{**expected, **changed})


def test_a_whole_file_arrives_with_a_bar(publisher, tmp_path, capsys):
    fetch(publisher.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    bar = capsys.readouterr().err
    assert "numbers" in bar
    assert "100%" in bar


def test_a_redirection_is_followed(publisher, tmp_path):
    publisher.answer = answers.moved_and_found
    fetch(publisher.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (answers.truncated, "IncompleteRead.*1000 more expected"),
        (answers.truncated_without_a_length, f"sent {len(BODY) - 1000:,} .* has {len(BODY):,}"),
        (answers.login_page, "sent 43 bytes where the file has"),
        (answers.other_bytes, f"its sha256 is [0-9a-f]{{64}} instead of {SHA256}"),
        (answers.forbidden, "answered 403 Forbidden"),
        (answers.not_found, "answered 404 Not Found"),
        (answers.hangs_up, "the connection to 127.0.0.1 failed: "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_answer_is_one_sentence_that_names_the_host(publisher, tmp_path, answer, says):
    publisher.answer = answer
    with pytest.raises(DownloadFailed, match=says) as caught:
        fetch(publisher.url, tmp_path / "file")
    assert "127.0.0.1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answer", [answers.silent, answers.half_then_silent])
def test_a_server_that_goes_silent_is_given_up(publisher, tmp_path, answer):
    publisher.answer = answer
    with pytest.raises(DownloadFailed, match=r"nothing came from 127\.0\.0\.1 for 0\.2 s"):
        fetch(publisher.url, tmp_path / "file", read_timeout=0.2)


def test_an_endless_answer_is_cut_short(publisher, tmp_path):
    publisher.answer = answers.endless
    with pytest.raises(DownloadFailed, match=f"at least .* bytes where the file has {len(BODY):,}"):
        fetch(publisher.url, tmp_path / "file")
    assert publisher.proceed.wait(20)  # the server saw the connection closed
    assert (tmp_path / "file").stat().st_size < 2 * len(BODY)


def test_nobody_listening(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DownloadFailed, match="failed: Connection refused"):
        fetch(f"http://127.0.0.1:{port}/", tmp_path / "file")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses at once")
def test_a_connection_that_is_never_accepted(tmp_path):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        queue = [socket.socket() for _ in range(4)]  # fill the queue: nobody accepts
        for waiting in queue:
            waiting.setblocking(False)
            waiting.connect_ex(address)
        with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1 did not answer within 0\.2 s"):
            fetch(f"http://127.0.0.1:{address[1]}/", tmp_path / "file", connect_timeout=0.2)
        for waiting in queue:
            waiting.close()


def test_a_machine_without_a_network(tmp_path, monkeypatch):
    def no_name_server(*args, **kwargs):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_name_server)
    monkeypatch.setenv("NO_PROXY", "example.invalid")
    with pytest.raises(DownloadFailed) as caught:
        fetch("http://example.invalid/file", tmp_path / "file")
    assert str(caught.value) == (
        "the connection to example.invalid failed: Temporary failure in name resolution"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(publisher, tmp_path):
    full = tmp_path / "file"
    full.symlink_to("/dev/full")
    with pytest.raises(DownloadFailed, match=f"cannot be stored in {tmp_path}: No space left"):
        fetch(publisher.url, full)


def test_a_folder_that_is_not_there(publisher, tmp_path):
    with pytest.raises(DownloadFailed, match=f"cannot be stored in {tmp_path}/gone: No such file"):
        fetch(publisher.url, tmp_path / "gone" / "file")


def test_the_course_waits_five_seconds_for_a_connection():
    assert CONNECT_TIMEOUT == 5
    assert 5 <= READ_TIMEOUT <= 60
