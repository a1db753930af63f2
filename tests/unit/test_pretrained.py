"""Published weights: found in torch's cache, compared before they are read, or None, said so."""

import hashlib
import io
import re
import subprocess
import sys

import loopback_publisher as answers
import pytest
import torch
from loopback_publisher import Publisher, send
from torchvision.models import ShuffleNet_V2_X0_5_Weights, Weights, resnet18, shufflenet_v2_x0_5

from course_lib import pretrained
from course_lib.data import DataDamaged

CLASSES = 5
META = {"categories": [*"abcde"]}
DEADLINE = 60  # seconds until a test gives up on another process


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Torch's cache of a reader without a network: a folder of the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "hub" / "checkpoints"


def packed(state) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def state():
    """Random weights of a network of five classes."""
    torch.manual_seed(0)
    return shufflenet_v2_x0_5(num_classes=CLASSES).state_dict()


def named(content: bytes, server: str = "http://127.0.0.1:9") -> Weights:
    """Weights whose name promises this content, at a port where nobody listens."""
    beginning = hashlib.sha256(content).hexdigest()[:8]
    return Weights(url=f"{server}/network-{beginning}.pth", transforms=None, meta=META)


def put(cache, weights, content):
    cache.mkdir(parents=True)
    path = cache / weights.url.rsplit("/", 1)[-1]
    path.write_bytes(content)
    return path


def test_takes_the_file_in_torchs_cache(cache, state, capsys):
    content = packed(state)
    path = put(cache, named(content), content)
    found = pretrained.load(shufflenet_v2_x0_5, named(content))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert str(path) in capsys.readouterr().out


def test_takes_a_larger_networks_file_too(cache):
    torch.manual_seed(0)
    content = packed(resnet18(num_classes=CLASSES).state_dict())
    put(cache, named(content), content)
    assert pretrained.load(resnet18, named(content))["conv1.weight"].shape == (64, 3, 7, 7)


def test_takes_a_file_of_the_time_before_batches_were_counted(cache, state):
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    content = packed(old)
    put(cache, named(content), content)
    assert pretrained.load(shufflenet_v2_x0_5, named(content)).keys() == old.keys()


def test_without_a_file_and_a_network_says_what_to_do(cache, capsys):
    assert pretrained.load(shufflenet_v2_x0_5) is None
    said, url = capsys.readouterr().out, ShuffleNet_V2_X0_5_Weights.DEFAULT.url
    assert "NO PRETRAINED WEIGHTS" in said
    assert "not tried, because COURSE_OFFLINE is set" in said
    assert url in said
    assert str(cache / url.rsplit("/", 1)[-1]) in said


@pytest.mark.parametrize("cut", [0, 1000, -1])
def test_a_file_cut_off_is_named(cache, state, cut):
    content = packed(state)
    path = put(cache, named(content), content[:cut])
    with pytest.raises(DataDamaged, match="cut off or another file") as error:
        pretrained.load(shufflenet_v2_x0_5, named(content))
    assert str(path) in str(error.value)


def changed(state, **changes):
    return {k: v for k, v in (state | changes).items() if v is not None}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(
            lambda s: changed(s, **{"conv1.1.bias": None}), "conv1.1.bias is missing", id="less"
        ),
        pytest.param(lambda s: changed(s, more=torch.ones(1)), "more is unknown", id="more"),
        pytest.param(
            lambda s: changed(s, **{"conv1.1.bias": torch.ones(3)}),
            r"conv1.1.bias has shape \(3,\), not \(24,\)",
            id="shape",
        ),
        pytest.param(
            lambda s: changed(s, **{"fc.bias": torch.ones(7)}), "fc.bias has shape", id="classes"
        ),
        pytest.param(lambda s: [*s.values()], "it holds a list", id="a list"),
        pytest.param(lambda s: changed(s, **{"conv1.1.bias": 3}), "conv1.1.bias", id="a number"),
    ],
)
def test_weights_of_another_network_are_named(cache, state, change, says):
    content = packed(change(state))
    path = put(cache, named(content), content)
    with pytest.raises(DataDamaged, match=says) as error:
        pretrained.load(shufflenet_v2_x0_5, named(content))
    assert str(path) in str(error.value)


def test_a_file_that_is_no_checkpoint_is_named(cache):
    content = b"<!DOCTYPE html><title>Please log in</title>"
    put(cache, named(content), content)
    with pytest.raises(DataDamaged, match="it holds no weights"):
        pretrained.load(shufflenet_v2_x0_5, named(content))


def test_a_folder_of_that_name_is_named(cache):
    weights = named(b"anything")
    (cache / weights.url.rsplit("/", 1)[-1]).mkdir(parents=True)
    with pytest.raises(DataDamaged, match="it cannot be read"):
        pretrained.load(shufflenet_v2_x0_5, weights)


def test_code_in_a_file_is_not_run(cache, tmp_path):
    class Harm:
        def __reduce__(self):
            return open, (str(tmp_path / "harm"), "w")

    content = packed({"conv1.0.weight": Harm()})
    put(cache, named(content), content)
    with pytest.raises(DataDamaged, match="it holds no weights"):
        pretrained.load(shufflenet_v2_x0_5, named(content))
    assert not (tmp_path / "harm").exists()


# --- downloads ------------------------------------------------------------------------------------


@pytest.fixture
def publisher(monkeypatch):
    monkeypatch.setenv("COURSE_OFFLINE", "")
    monkeypatch.setattr(pretrained, "CONNECT_TIMEOUT", 1.0)
    with Publisher() as running:
        yield running


def at(publisher, content) -> Weights:
    return named(content, publisher.url.rsplit("/", 1)[0])


def test_downloads_once(cache, state, publisher):
    content = packed(state)
    publisher.answer = lambda _, handler: send(handler, content, length=len(content))
    for _ in range(2):
        assert pretrained.load(shufflenet_v2_x0_5, at(publisher, content)).keys() == state.keys()
    assert publisher.gets == 1
    assert [p.suffix for p in cache.iterdir() if p.suffix != ".lock"] == [".pth"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(answers.login_page, "not the file", id="login page"),
        pytest.param(answers.truncated, "not the file", id="cut off"),
        pytest.param(answers.not_found, "404", id="not found"),
        pytest.param(answers.hangs_up, "not the file|[Rr]emote|reset", id="hangs up"),
        pytest.param(answers.silent, "timed out", id="silent"),
        pytest.param(answers.half_then_silent, "timed out", id="half"),
    ],
)
def test_a_failed_download_is_no_weights(cache, publisher, capsys, answer, why):
    publisher.answer = answer
    assert pretrained.load(shufflenet_v2_x0_5, at(publisher, b"right")) is None
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("  Download:"))
    assert re.search(why, line), line
    assert not [p for p in cache.iterdir() if p.suffix != ".lock"]


def test_where_nobody_listens_there_are_no_weights(publisher, capsys):
    assert pretrained.load(shufflenet_v2_x0_5, named(b"right")) is None
    assert "refused" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written_is_said(cache, state, publisher, capsys):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder belongs")
    assert pretrained.load(shufflenet_v2_x0_5, at(publisher, packed(state))) is None
    assert "nothing can be stored in" in capsys.readouterr().out
    assert publisher.gets == 0


WAITER = """
import sys
from torchvision.models import Weights, shufflenet_v2_x0_5
from course_lib import pretrained
pretrained.CONNECT_TIMEOUT = 60
weights = Weights(url=sys.argv[1], transforms=None, meta={"categories": [*"abcde"]})
print(len(pretrained.load(shufflenet_v2_x0_5, weights)))
"""


def test_one_process_downloads_while_the_others_wait(state, publisher):
    content = packed(state)

    def whole_when_told(publisher, handler):
        publisher.proceed.wait(DEADLINE)
        send(handler, content, length=len(content))

    publisher.answer = whole_when_told
    command = [sys.executable, "-u", "-c", WAITER, at(publisher, content).url]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert publisher.asked.wait(DEADLINE)
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert "another process is downloading it" in second.stdout.readline()
            publisher.proceed.set()
            for process in (first, second):
                out, _ = process.communicate(timeout=DEADLINE)
                assert out.splitlines()[-1] == str(len(state))
        finally:
            second.kill()
    finally:
        first.kill()
    assert publisher.gets == 1
