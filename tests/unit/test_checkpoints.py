"""Checkpoints: found by folder, by name, in the hub's cache or on a hub; looked at file by file."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import loopback_publisher as answers
import pytest
import requests
import torch
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled
from loopback_publisher import Publisher, send
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaModel,
)
from transformers.utils import logging

from course_lib import checkpoints
from course_lib.data import DataDamaged, DataNotFound

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghij",
    *(f"##{c}" for c in "abcdefghij"),
]
NAME = "owner/tiny"
REVISION = "0" * 39 + "1"
DEADLINE = 60  # seconds until a test gives up on another process


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """The data folder of a reader without a network, with an empty hub's cache beside it."""
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def bert(**changes):
    return BertConfig(
        **(
            dict(
                vocab_size=25,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=32,
            )
            | changes
        )
    )


def distilbert():
    return DistilBertConfig(
        vocab_size=25, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=32
    )


def write_words(folder, words=WORDS):
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))


def saved(folder, model, **options):
    """Save a model with a tokenizer of 25 tokens."""
    logging.disable_progress_bar()
    model.save_pretrained(folder, **options)
    logging.enable_progress_bar()
    write_words(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Two checkpoints, trained with masked words as most are: ``checkpoint["bert"]``."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    return {
        "bert": saved(folder / "bert", BertForMaskedLM(bert())),
        "distilbert": saved(folder / "distilbert", DistilBertForMaskedLM(distilbert())),
    }


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A copy of the first, to be damaged."""
    return shutil.copytree(checkpoint["bert"], tmp_path / "copy")


FOUND = {"bert": "BertModel, 5,696 weights", "distilbert": "DistilBertModel, 5,392 weights"}
KINDS = pytest.mark.parametrize("kind", FOUND)


# --- where it is found --------------------------------------------------------------------------


@KINDS
def test_a_folder(checkpoint, kind, capfd):
    folder = checkpoint[kind]
    assert checkpoints.find(str(folder)) == folder
    out, err = capfd.readouterr()
    assert out == f"{folder}: {FOUND[kind]}, 25 tokens: {folder}\n"
    assert err == ""


@KINDS
def test_what_is_found_can_be_trained(checkpoint, kind):
    folder = checkpoints.find(checkpoint[kind])
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    batch = AutoTokenizer.from_pretrained(folder)(
        ["ab", "cab ab"], padding=True, return_tensors="pt"
    )
    model(**batch, labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad is not None for p in model.base_model.embeddings.parameters())


@pytest.mark.parametrize("name", ["copy", "./copy", "../{}/copy", "~/copy"])
def test_a_folder_may_be_written_in_any_way(copy, name, monkeypatch):
    monkeypatch.setenv("HOME", str(copy.parent))
    found = checkpoints.find(name.format(copy.parent.name))
    assert (found.is_absolute(), found.samefile(copy)) == (True, True)


@KINDS
@pytest.mark.parametrize("place", ["tiny", "owner/tiny"])
def test_a_name_in_the_data_folder(data, checkpoint, kind, place, capsys):
    folder = shutil.copytree(checkpoint[kind], data / "models" / place)
    assert checkpoints.find(NAME) == folder
    assert capsys.readouterr().out == f"owner/tiny: {FOUND[kind]}, 25 tokens: {folder}\n"


def test_a_name_without_an_owner(data, checkpoint):
    folder = shutil.copytree(checkpoint["bert"], data / "models" / "tiny")
    assert checkpoints.find("tiny") == folder


def cache(checkpoint, name=NAME):
    """Lay a checkpoint into the hub's cache as its library does: links to files of hashed names."""
    top = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    folder = top / "snapshots" / REVISION
    for part in ("refs", "blobs", f"snapshots/{REVISION}"):
        (top / part).mkdir(parents=True)
    (top / "refs" / "main").write_text(REVISION)
    for number, file in enumerate(sorted(checkpoint.iterdir())):
        shutil.copy(file, top / "blobs" / str(number))
        (folder / file.name).symlink_to(f"../../blobs/{number}")
    return folder


@KINDS
@pytest.mark.parametrize("name", ["owner/tiny", "tiny"])
def test_a_name_in_the_hubs_cache(checkpoint, kind, name, capsys):
    folder = cache(checkpoint[kind], name)
    assert checkpoints.find(name) == folder
    assert f"{name}: {FOUND[kind]}, 25 tokens: {folder}\n" == capsys.readouterr().out


def test_the_data_folder_comes_before_the_hubs_cache(data, checkpoint):
    cache(checkpoint["bert"])
    folder = shutil.copytree(checkpoint["distilbert"], data / "models" / NAME)
    assert checkpoints.find(NAME) == folder


def test_half_a_checkpoint_in_the_hubs_cache_is_passed_over_and_told(checkpoint, capsys):
    (cache(checkpoint["bert"]) / "model.safetensors").unlink()
    assert checkpoints.find(NAME) is None
    assert f"{constants.HF_HUB_CACHE} (in it, model.safetensors is missing)" in (
        capsys.readouterr().out
    )


def test_a_damaged_file_in_the_hubs_cache_is_not_passed_over(checkpoint):
    folder = cache(checkpoint["bert"])
    cut(folder / "model.safetensors")
    with pytest.raises(DataDamaged, match=r"model\.safetensors cannot be used") as error:
        checkpoints.find(NAME)
    assert str(folder) in str(error.value)


# --- what is not there --------------------------------------------------------------------------


def test_offline_there_is_nothing_and_the_reader_is_told_what_to_do(data, capsys):
    assert checkpoints.find(NAME) is None
    said = capsys.readouterr().out
    assert "NO CHECKPOINT: owner/tiny is not here." in said
    assert f"Looked for:  {data / 'models' / NAME} (no such folder)" in said
    assert f"the hub's cache {constants.HF_HUB_CACHE} (not in it)" in said
    assert "Download:    not tried, because COURSE_OFFLINE is set" in said
    assert "files from http://127.0.0.1:9/owner/tiny\n" in said
    assert not data.exists()


@pytest.mark.parametrize("name", ["/nowhere/tiny", "./tiny", "../tiny", "~/tiny", "C:\\tiny"])
def test_a_path_that_leads_nowhere_is_an_error(name):
    with pytest.raises(DataNotFound, match=r"tiny: no such folder\.\nGive the folder that holds"):
        checkpoints.find(name)


@pytest.mark.parametrize("name", ["", "a/b/c", "with blanks", "a//b", "tiny.git", "owner/"])
def test_a_name_that_can_be_none_is_an_error(name):
    with pytest.raises(ValueError, match=f"{name!r} is no folder here, and nothing on the Hug"):
        checkpoints.find(name)


# --- what is damaged ----------------------------------------------------------------------------


def cut(path, at=-100):
    path.write_bytes(path.read_bytes()[:at])


def put(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def drop(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def configure(**changes):
    def change(folder):
        path = folder / "config.json"
        config = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return change


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def weigh(change):
    def changed(folder):
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, {"format": "pt"})

    return changed


def without(part):
    return weigh(lambda state: {k: v for k, v in state.items() if part not in k})


def jsoned(folder, at=None):
    """A tokenizer of today's form, one file, perhaps cut off."""
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    if at:
        cut(folder / "tokenizer.json", at)


SHARDS = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def shard(folder):
    """Weights in two files, and an index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [SHARDS[number % 2] for number in range(len(state))]
    weight_map = dict(zip(state, names, strict=True))
    for name in SHARDS:
        part = {k: v for k, v in state.items() if weight_map[k] == name}
        save_file(part, folder / name, {"format": "pt"})
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def both(*steps):
    return lambda folder: [step(folder) for step in steps]


DAMAGED = {
    "no configuration": (drop("config.json"), "config.json is missing"),
    "half a configuration": (
        lambda folder: cut(folder / "config.json"),
        "config.json cannot be used: JSONDecodeError: ",
    ),
    "a login page": (put("config.json", b"<html>"), "config.json cannot be used: JSONDecodeError"),
    "a list": (put("config.json", b"[]"), "config.json cannot be used: AttributeError"),
    "bytes": (put("config.json", b"\xff\xfe"), "config.json cannot be used: UnicodeDecodeError"),
    "no type": (configure(model_type=None), "config.json names no model_type"),
    "a number for a type": (configure(model_type=3), "config.json names no model_type"),
    "an unknown type": (
        configure(model_type="my_bert"),
        "has no model of the type 'my_bert' that classifies texts",
    ),
    "a type that reads no text": (configure(model_type="vit"), "no model of the type 'vit' that"),
    "heads that do not divide": (configure(num_attention_heads=3), "cannot be used: "),
    "a word for a number": (configure(hidden_size="big"), "config.json cannot be used: "),
    "no weights": (drop("model.safetensors"), "model.safetensors is missing"),
    "weights cut off": (
        lambda folder: cut(folder / "model.safetensors"),
        "model.safetensors cannot be used: SafetensorError: ",
    ),
    "weights cut off early": (
        lambda folder: cut(folder / "model.safetensors", 100),
        "model.safetensors cannot be used: SafetensorError: ",
    ),
    "nothing for weights": (put("model.safetensors", b""), "model.safetensors cannot be used: "),
    "a text for weights": (
        put("model.safetensors", b"<!DOCTYPE html><title>Sign in</title>"),
        "model.safetensors cannot be used: SafetensorError: ",
    ),
    "what git leaves": (
        put("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "model.safetensors cannot be used: it is a pointer of Git LFS\n",
    ),
    "a folder for weights": (
        lambda folder: (drop("model.safetensors")(folder), (folder / "model.safetensors").mkdir()),
        "model.safetensors cannot be used: ",
    ),
    "a pickle": (pickled, "pytorch_model.bin is a pickle: reading one can run whatever code"),
    "a missing shard": (both(shard, drop(SHARDS[1])), f"{SHARDS[1]} is missing"),
    "half a shard": (
        both(shard, lambda folder: cut(folder / SHARDS[0])),
        f"{SHARDS[0]} cannot be used: SafetensorError: ",
    ),
    "half an index": (
        both(shard, lambda folder: cut(folder / "model.safetensors.index.json")),
        "model.safetensors.index.json cannot be used: JSONDecodeError: ",
    ),
    "an index of nothing": (
        both(shard, put("model.safetensors.index.json", b"{}")),
        "model.safetensors.index.json cannot be used: KeyError: ",
    ),
    "no tokenizer": (drop("vocab.txt"), "the tokenizer's files are missing (tokenizer.json, "),
    "half a tokenizer": (lambda f: jsoned(f, -100), "its tokenizer cannot be used: JSONDecodeErr"),
    "a page for a vocabulary": (
        put("vocab.txt", b"<!DOCTYPE html>\n<title>Sign in</title>"),
        "its tokenizer cannot be used: Exception: WordPiece error: Missing [UNK] token",
    ),
    "a vocabulary cut off": (
        lambda folder: write_words(folder, WORDS[:9]),
        "its tokenizer has only 9 tokens of the 25 in config.json: the vocabulary is cut off",
    ),
    "a larger vocabulary": (
        lambda folder: write_words(folder, [*WORDS, "x"]),
        "its tokenizer has 26 tokens, but config.json has room for 25",
    ),
    "a tokenizer without padding": (
        both(jsoned, put("tokenizer_config.json", b'{"tokenizer_class": "TokenizersBackend"}')),
        "its tokenizer has no token for padding",
    ),
    "another size": (
        configure(hidden_size=32),
        "not fit config.json: bert.embeddings.LayerNorm.bias has shape (16,), not (32,)",
    ),
    "another vocabulary": (
        configure(vocab_size=26),
        "bert.embeddings.word_embeddings.weight has shape (25, 16), not (26, 16)",
    ),
    "more layers": (
        configure(num_hidden_layers=3),
        "bert.encoder.layer.2.attention.output.LayerNorm.bias is missing",
    ),
    "fewer layers": (
        configure(num_hidden_layers=1),
        "bert.encoder.layer.1.attention.output.LayerNorm.bias is unknown to it",
    ),
    "another architecture": (
        configure(model_type="distilbert", dim=16, n_heads=2, n_layers=2, hidden_dim=32),
        "distilbert.embeddings.LayerNorm.bias is missing",
    ),
    "a weight less": (
        without("layer.1.output.dense.bias"),
        "bert.encoder.layer.1.output.dense.bias is missing",
    ),
    "a turned weight": (
        weigh(
            lambda s: {k: v.T.contiguous() if "1.output.dense.w" in k else v for k, v in s.items()}
        ),
        "bert.encoder.layer.1.output.dense.weight has shape (32, 16), not (16, 32)",
    ),
}


@pytest.mark.parametrize(("damage", "fault"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_one_error_that_names_folder_and_file(copy, capfd, damage, fault):
    damage(copy)
    capfd.readouterr()
    with pytest.raises(DataDamaged) as error:
        checkpoints.find(copy)
    said = str(error.value)
    assert said.startswith(f"{copy}: ")
    assert fault in said
    assert "Put a fresh copy there" in said
    assert capfd.readouterr() == ("", "")


def test_layers_too_many_are_found_without_a_head_too(tmp_path):
    """A base model's own file has shorter names."""
    folder = saved(tmp_path / "base", BertModel(bert()))
    configure(num_hidden_layers=1)(folder)
    with pytest.raises(DataDamaged, match=r" encoder\.layer\.1\..* is unknown to it"):
        checkpoints.find(folder)


def test_a_file_is_no_checkpoint(tmp_path):
    (tmp_path / "weights").write_text("")
    with pytest.raises(DataDamaged, match="it is not a folder"):
        checkpoints.find("./weights")


def test_a_damaged_folder_is_never_passed_over_for_another(data, checkpoint):
    cache(checkpoint["bert"])
    (data / "models" / "tiny").mkdir(parents=True)
    with pytest.raises(DataDamaged, match=r"tiny: config\.json is missing"):
        checkpoints.find(NAME)


def test_the_advice_for_a_pickle_makes_a_checkpoint(copy, monkeypatch):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(DataDamaged) as error:
        checkpoints.find(copy)
    code = "\n".join(re.findall("^    (.*)$", str(error.value), re.MULTILINE))
    exec(code)
    assert checkpoints.find(copy) == copy


def test_code_in_a_checkpoint_is_not_run(copy, monkeypatch):
    """Neither the code of a pickle nor that of a module: the library asks on the terminal."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run code"))
    (copy / "code.py").write_text(f"open({str(copy / 'harm')!r}, 'w')")
    (copy / "pytorch_model.bin").write_bytes(b"cbuiltins\nexit\n(tR.")
    classes = {"AutoConfig": "code.C", "AutoModelForSequenceClassification": "code.M"}
    configure(auto_map=classes)(copy)
    jsoned(copy)
    put("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": ["code.T", "code.T"]}}')(copy)
    assert checkpoints.find(copy) == copy  # by the library's own classes
    configure(model_type="its_own")(copy)
    with pytest.raises(DataDamaged, match="no model of the type 'its_own'"):
        checkpoints.find(copy)
    assert not (copy / "harm").exists()


# --- what is not damaged ------------------------------------------------------------------------


def roberta():
    return RobertaConfig(
        vocab_size=25,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )


OTHER_HEADS = {
    "none": lambda: BertModel(bert()),
    "three classes": lambda: BertForSequenceClassification(bert(num_labels=3)),
    "a pooler that no classifier wants": lambda: RobertaModel(roberta()),
}


@pytest.mark.parametrize("make", OTHER_HEADS.values(), ids=OTHER_HEADS)
def test_whatever_head_it_had(tmp_path, make):
    folder = saved(tmp_path / "other", make())
    if (folder / "config.json").read_text().count("roberta"):
        jsoned(folder)
    assert checkpoints.find(folder) == folder


WHOLE = {
    "in two files": shard,
    "with a tokenizer of today": jsoned,
    "a padded vocabulary": lambda folder: write_words(folder, WORDS[:20]),
    "a leftover": weigh(
        lambda state: state | {"bert.embeddings.position_ids": torch.arange(32)[None]}
    ),
    "names of the first years": weigh(
        lambda state: {
            k.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): v
            for k, v in state.items()
        }
    ),
    "half precision": weigh(lambda state: {k: v.half() for k, v in state.items()}),
}


@pytest.mark.parametrize("change", WHOLE.values(), ids=WHOLE)
def test_a_checkpoint_may_look_otherwise(copy, change, capsys):
    change(copy)
    assert checkpoints.find(copy) == copy
    assert "BertModel, 5,696 weights" in capsys.readouterr().out


def test_looking_leaves_everything_as_it_was(copy):
    torch.manual_seed(3)
    wanted = torch.rand(3)
    logging.set_verbosity_info()
    try:
        for damaged in (False, True):
            torch.manual_seed(3)
            if damaged:
                cut(copy / "model.safetensors")
                with pytest.raises(DataDamaged):
                    checkpoints.find(copy)
            else:
                checkpoints.find(copy)
            assert torch.equal(torch.rand(3), wanted)
            assert logging.get_verbosity() == logging.INFO
            assert logging.is_progress_bar_enabled()
            assert not are_progress_bars_disabled()
    finally:
        logging.set_verbosity_warning()


def test_finding_nothing_costs_no_library():
    code = (
        "import sys; from course_lib import checkpoints\n"
        "print([m for m in ('transformers', 'requests', 'torch') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert answer.stdout == "[]\n", answer.stderr


# --- downloads ----------------------------------------------------------------------------------


def hub_of(folder, known=NAME):
    """What a hub says that has this checkpoint: its description, its files, each file."""

    def say(publisher, handler, path=None):
        path = path or handler.path.partition("?")[0]
        if path == f"/api/models/{known}" or path == f"/api/models/{known}/revision/main":
            siblings = [{"rfilename": p.name} for p in folder.iterdir()]
            return as_json(handler, {"id": known, "sha": REVISION, "siblings": siblings})
        if path == f"/api/models/{known}/tree/{REVISION}":
            return as_json(
                handler,
                [
                    {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": p.name}
                    for p in folder.iterdir()
                ],
            )
        file = folder / path.removeprefix(f"/{known}/resolve/{REVISION}/")
        if not file.is_file():
            return answers.not_found(publisher, handler)
        content = file.read_bytes()
        body = b"" if handler.command == "HEAD" else content
        marks = {"X-Repo-Commit": REVISION, "ETag": f'"{file.name}"'}
        return send(handler, body, length=len(content), **marks)

    return say


def as_json(handler, thing):
    body = json.dumps(thing).encode()
    send(handler, body, length=len(body), **{"Content-Type": "application/json"})


@pytest.fixture
def hub(monkeypatch):
    """A hub on loopback, asked by a course that may download."""
    monkeypatch.delenv("COURSE_OFFLINE")
    with Publisher() as running:
        kind = running._server.RequestHandlerClass
        kind.do_HEAD = kind.do_GET
        address = running.url.removesuffix("/numbers.csv")
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


def left(data):
    """What a download left under the folder of models, but for locks."""
    return sorted(p.name for p in (data / "models" / "owner").iterdir() if p.suffix != ".lock")


@KINDS
def test_a_download_is_kept_and_found_again(data, hub, checkpoint, kind, monkeypatch, capfd):
    hub.answer = hub_of(checkpoint[kind])
    folder = checkpoints.find(NAME)
    assert folder == data / "models" / NAME
    out, err = capfd.readouterr()
    assert out.splitlines() == [
        "owner/tiny: downloading it from the Hugging Face hub; this may take minutes",
        f"owner/tiny: {FOUND[kind]}, 25 tokens: {folder}",
    ]
    assert err == ""
    assert left(data) == ["tiny"]
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]
    assert not Path(constants.HF_HUB_CACHE).exists()
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    assert checkpoints.find(NAME) == folder


def test_only_what_is_needed_is_downloaded(hub, checkpoint, tmp_path):
    more = shutil.copytree(checkpoint["bert"], tmp_path / "more")
    for name in ("README.md", "pytorch_model.bin", "code.py", "model.fp16.safetensors"):
        (more / name).write_text("not needed")
    hub.answer = hub_of(more)
    assert not {p.name for p in checkpoints.find(NAME).iterdir()} & {"README.md", "code.py"}
    assert sorted(p.suffix for p in checkpoints.find(NAME).iterdir()) == [
        ".json",
        ".safetensors",
        ".txt",
    ]


def test_a_checkpoint_that_moved_is_found_by_its_old_name(data, hub, checkpoint):
    moved = hub_of(checkpoint["bert"], "new-owner/tiny")

    def answer(publisher, handler):
        if handler.path.startswith(f"/api/models/{NAME}"):
            return send(handler, b"", status=307, length=0, Location="/api/models/new-owner/tiny")
        return moved(publisher, handler)

    hub.answer = answer
    assert checkpoints.find(NAME) == data / "models" / NAME


def test_a_name_of_the_first_years_has_an_owner_today(data, hub, checkpoint):
    today = hub_of(checkpoint["bert"])

    def answer(publisher, handler):
        if handler.path == "/api/models/tiny":
            return as_json(handler, {"id": NAME})
        return today(publisher, handler)

    hub.answer = answer
    assert checkpoints.find("tiny") == data / "models" / "tiny"


def on(path, otherwise, answer):
    """Answer otherwise where the path ends so."""

    def say(publisher, handler):
        chosen = otherwise if handler.path.partition("?")[0].endswith(path) else answer
        chosen(publisher, handler)

    return say


def half_then_gone(publisher, handler):
    """Send the first half of the weights; when asked for the rest, hang up."""
    marks = {"X-Repo-Commit": REVISION, "ETag": '"model.safetensors"'}
    if handler.command == "HEAD":
        send(handler, b"", length=20_000, **marks)
    elif "Range" not in handler.headers:
        send(handler, b"x" * 10_000, length=20_000, **marks)
    handler.connection.close()


def other(publisher, handler):
    as_json(handler, {"id": "somebody/else"})


def refusing(publisher, handler):
    handler.send_error(401)


FAILURES = {
    "a name it does not know": (
        lambda _: refusing,
        "127.0.0.1 answered 401 Unauthorized: it has no public owner/tiny",
    ),
    "nothing there": (lambda _: answers.not_found, "127.0.0.1 answered 404 Not Found"),
    "a login page": (lambda _: answers.login_page, "127.0.0.1 did not answer as the hub does"),
    "another checkpoint": (lambda _: other, "answered about 'somebody/else' instead of owner/ti"),
    "hangs up": (lambda _: answers.hangs_up, "the connection to 127.0.0.1 failed: "),
    "a file that is not there": (
        lambda folder: on("vocab.txt", answers.not_found, hub_of(folder)),
        "the hub's library could not get it: HfHubHTTPError: Client error '404",
    ),
    "weights that are a page": (
        lambda folder: on("model.safetensors", answers.login_page, hub_of(folder)),
        "the hub's library could not get it: ",
    ),
}


@pytest.mark.parametrize(("answer", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_failed_download_is_none_and_leaves_nothing(data, hub, checkpoint, answer, reason, capfd):
    hub.answer = answer(checkpoint["bert"])
    assert checkpoints.find(NAME) is None
    out, err = capfd.readouterr()
    line = next(line for line in out.splitlines() if line.startswith("  Download:"))
    assert reason in line
    assert err == ""
    assert left(data) == []


def test_a_download_cut_off_in_the_middle_leaves_nothing(data, hub, checkpoint, capfd, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.answer = on("model.safetensors", half_then_gone, hub_of(checkpoint["bert"]))
    assert checkpoints.find(NAME) is None
    assert "the hub's library could not get it: " in capfd.readouterr().out
    assert left(data) == []
    hub.answer = hub_of(checkpoint["bert"])
    assert checkpoints.find(NAME) == data / "models" / NAME


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (
            configure(num_hidden_layers=3),
            "its weights do not fit config.json: bert.encoder.layer.2",
        ),
        (pickled, "model.safetensors is missing"),
    ],
    ids=["layers", "pickle"],
)
def test_what_the_hub_has_is_looked_at_before_it_is_kept(data, hub, copy, capsys, damage, fault):
    damage(copy)
    hub.answer = hub_of(copy)
    assert checkpoints.find(NAME) is None
    assert f"Download:    what the hub has cannot be used: {fault}" in capsys.readouterr().out
    assert left(data) == []


def test_where_nobody_listens_there_is_nothing(monkeypatch, capsys):
    monkeypatch.delenv("COURSE_OFFLINE")
    assert checkpoints.find(NAME) is None
    assert "connection to 127.0.0.1 failed: Connection refused" in capsys.readouterr().out


def test_a_silent_hub_is_given_up(hub, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "READ_TIMEOUT", 0.2)
    hub.answer = answers.silent
    assert checkpoints.find(NAME) is None
    assert "the connection to 127.0.0.1 failed: timed out" in capsys.readouterr().out


def test_the_course_waits_no_longer_than_for_data(hub, monkeypatch, capsys):
    def get(url, timeout):
        assert timeout == (5.0, 30.0)
        raise requests.ConnectTimeout

    monkeypatch.setattr(requests, "get", get)
    assert checkpoints.find(NAME) is None
    assert "did not answer within 5 s" in capsys.readouterr().out


def test_the_librarys_own_offline_switch_is_heeded(hub, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert checkpoints.find(NAME) is None
    assert "not tried, because HF_HUB_OFFLINE is set" in capsys.readouterr().out
    assert hub.gets == 0


def test_nothing_is_asked_offline_or_when_it_is_there(data, hub, checkpoint, monkeypatch):
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    checkpoints.find(NAME)
    monkeypatch.delenv("COURSE_OFFLINE")
    cache(checkpoint["bert"])
    checkpoints.find(NAME)
    assert hub.gets == 0


def test_a_data_folder_that_cannot_be_written_is_told(data, hub, checkpoint, capsys):
    (data / "models").mkdir(parents=True)
    (data / "models" / "owner").write_text("a file where the folder belongs")
    hub.answer = hub_of(checkpoint["bert"])
    assert checkpoints.find(NAME) is None
    assert "nothing can be stored in" in capsys.readouterr().out
    assert hub.gets == 0


WAITER = """
from course_lib import checkpoints
checkpoints.CONNECT_TIMEOUT = 60
checkpoints.inspect = lambda folder: "looked at elsewhere"  # that takes two imports of torch
print(checkpoints.find("owner/tiny").name)
"""


def test_one_process_downloads_while_the_others_wait(data, hub, checkpoint, monkeypatch):
    whole, asked = hub_of(checkpoint["bert"]), []

    def whole_when_told(publisher, handler):
        asked.append(handler.path)
        publisher.proceed.wait(DEADLINE)
        whole(publisher, handler)

    hub.answer = whole_when_told
    monkeypatch.setenv("HF_ENDPOINT", constants.ENDPOINT)
    monkeypatch.setenv("HF_HUB_CACHE", constants.HF_HUB_CACHE)
    command = [sys.executable, "-u", "-c", WAITER]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert hub.asked.wait(DEADLINE)
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert "another process is downloading it" in second.stdout.readline()
            hub.proceed.set()
            for process in (first, second):
                out, _ = process.communicate(timeout=DEADLINE)
                assert out.splitlines()[-1] == "tiny"
        finally:
            second.kill()
    finally:
        first.kill()
    assert asked.count(f"/api/models/{NAME}") == 1
