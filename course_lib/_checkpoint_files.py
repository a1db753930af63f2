"""Look at every file of a checkpoint before anybody trains with it.

Why: where the weights do not fit, the library fills the gap with random numbers and a warning, and
where there is no vocabulary, with one of five tokens. Both look like a model that learns badly.

Invariants:

- Nothing is unpickled, and no code that comes with a checkpoint is run.
- What the library says meanwhile is not shown, and torch's random numbers go on as if nothing had
  been asked.
"""

import contextlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
# Of what lies on the hub. No "*.json": there a star would take the files of subfolders, too.
WANTED = [CONFIG, WEIGHTS, INDEX, "model-*-of-*.safetensors", *VOCABULARIES]
WANTED += ["merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]

_ONLY = {"local_files_only": True, "trust_remote_code": False}


class Unfit(Exception):
    """What is wrong with a checkpoint's folder, in a few words."""


class Lacking(Unfit):
    """A file is not there."""


def inspect(folder: Path) -> str:
    """Say what a checkpoint is, after looking at every file of it.

    Args:
        folder: Where its configuration, its weights and its tokenizer's files should lie.

    Returns:
        ``"BertModel, 22.7 million weights, 30522 tokens"``.

    Raises:
        Lacking: A file is not there.
        Unfit: A file is damaged, or does not fit the others.
    """
    if not folder.is_dir():
        raise Unfit("it is not a folder, and a checkpoint is one")
    _configuration(folder)
    _weights(folder)
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise Lacking(f"the tokenizer's files are missing ({', '.join(VOCABULARIES[:3])}, …)")
    with quiet():
        model = _loaded(folder).base_model
        tokens = _tokens(folder, model.config)
    count = model.num_parameters()
    says = f"{count / 1e6:.1f} million" if count > 1e5 else f"{count:,}"
    return f"{type(model).__name__}, {says} weights, {tokens} tokens"


def _configuration(folder: Path) -> None:
    """Look into the configuration: it must name a model that can classify texts."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
    )

    with _blaming(folder, CONFIG):
        kind = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type")
    if not isinstance(kind, str):
        raise Unfit(f"{CONFIG} names no model_type")
    if kind not in CLASSIFIERS:
        raise Unfit(
            f"{CONFIG}: the transformers library has no model of the type {kind!r} that "
            "classifies texts"
        )


def _weights(folder: Path) -> None:
    """Look into each file of weights: it must be safetensors, and whole."""
    from safetensors import safe_open

    names = [WEIGHTS]
    if not (folder / WEIGHTS).is_file():
        if (folder / INDEX).is_file():
            with _blaming(folder, INDEX):
                parts = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
                names = sorted({*parts.values()})
        elif pickles := sorted(folder.glob("pytorch_model*.bin")):
            raise Lacking(
                f"{WEIGHTS} is missing, and {pickles[0].name} is a pickle: reading one can run "
                "whatever code is in it, so the course reads none. If you trust it, convert it:\n"
                "    from transformers import AutoModel\n"
                f"    AutoModel.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
            )
    for name in names:
        with _blaming(folder, name), safe_open(folder / name, framework="pt"):
            pass


def _loaded(folder: Path) -> "PreTrainedModel":
    """Load it as a classifier; nothing below the classifier may be missing or of another shape."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with _blaming(folder, CONFIG):
        config = AutoConfig.from_pretrained(folder, **_ONLY, num_labels=2)
    with _blaming(folder, "its weights"), torch.random.fork_rng(devices=[]):
        model, found = AutoModelForSequenceClassification.from_pretrained(
            folder,
            **_ONLY,
            config=config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    if fault := _misfit(model, found):
        raise Unfit(f"its weights do not fit {CONFIG}: {fault}")
    return model


def _misfit(model: "PreTrainedModel", found: dict) -> str:
    """What is wrong with the names or the shapes of the base model; "" for nothing.

    A pooler may be new: it belongs to a head, and checkpoints made by masked words have none.
    """
    prefix = f"{model.base_model_prefix}."

    def below(name: str) -> bool:
        return name.startswith(prefix) and ".pooler." not in name

    for name in filter(below, sorted(found["missing_keys"])):
        return f"{name} is missing"
    for name, has, needs in sorted(found["mismatched_keys"]):
        if below(name):
            return f"{name} has shape {tuple(has)}, not {tuple(needs)}"
    # A name too many is another head's, or a leftover; but not if it is one layer more of the same.
    kinds = {re.sub(r"\d+", "#", name) for name in model.state_dict()}
    for name in sorted(found["unexpected_keys"]):
        full = name if name.startswith(prefix) else prefix + name
        if below(full) and re.sub(r"\d+", "#", full) in kinds:
            return f"{name} is unknown to it"
    return ""


def _tokens(folder: Path, config: "PretrainedConfig") -> int:
    """Load the tokenizer; return how many tokens it has, after comparing that with the model."""
    from transformers import AutoTokenizer

    with _blaming(folder, "its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **_ONLY)
        tokenizer("Does it run?")  # some tell only now that they lack a token for unknown words
        tokens = max(tokenizer.get_vocab().values()) + 1
    room = getattr(config.get_text_config(), "vocab_size", tokens)
    if tokens > room:
        raise Unfit(f"its tokenizer has {tokens} tokens, but {CONFIG} has room for {room}")
    if tokens < room / 2:
        raise Unfit(
            f"its tokenizer has only {tokens} tokens of the {room} in {CONFIG}: the vocabulary is "
            "cut off, or another model's"
        )
    if tokenizer.pad_token_id is None:
        raise Unfit("its tokenizer has no token for padding, so texts make no batch")
    return tokens


@contextlib.contextmanager
def _blaming(folder: Path, name: str) -> Iterator[None]:
    """Turn whatever the libraries raise into one line about a file."""
    try:
        yield
    except FileNotFoundError as error:
        raise Lacking(f"{Path(error.filename or name).name} is missing") from error
    except Exception as error:
        why = "it is a pointer of Git LFS" if _points(folder / name) else brief(error)
        raise Unfit(f"{name} cannot be used: {why}") from error


def brief(error: BaseException) -> str:
    """An error in one line: what it is, and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _points(path: Path) -> bool:
    """Whether a copy made by git stands for the file: a few lines that say where it is."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(23) == b"version https://git-lfs"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show no warnings and no bars of the libraries: in notebooks, bars are saved frozen at 0 %."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging as transformers

    levels = {library: library.get_verbosity() for library in (hub, transformers)}
    bars, hub_bars = transformers.is_progress_bar_enabled(), not are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for library in levels:
                library.set_verbosity_error()
            transformers.disable_progress_bar()  # and the hub's
            yield
        finally:
            for library, level in levels.items():
                library.set_verbosity(level)
            if bars:
                transformers.enable_progress_bar()  # and the hub's
            (enable_progress_bars if hub_bars else disable_progress_bars)()
