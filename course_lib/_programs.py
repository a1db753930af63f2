"""Where written programs lie, and how they are written: whole or not at all."""

from pathlib import Path

from course_lib._files import write_whole
from course_lib._lessons import course_above


def find_root() -> Path:
    """The course's folder: the nearest one upwards with ``notebooks/``, else the present one."""
    return course_above(Path.cwd()) or Path.cwd()


def from_root(path: Path) -> str:
    """``path`` as it is named from the course's folder."""
    return str(path.relative_to(find_root()) if path.is_relative_to(find_root()) else path)


def place(name: str | Path, suffix: str) -> Path:
    """Where a file goes: a name without a folder belongs in ``scripts/``.

    Raises:
        ValueError: The name does not end in ``suffix``.
    """
    path = Path(name)
    if path.suffix != suffix:
        raise ValueError(f"{name}: a file name that ends in {suffix} is needed")
    return (path if path.parent != Path() else find_root() / "scripts" / path).absolute()


def write_marked(path: Path, text: str, mark: str) -> None:
    """Write a file that holds ``mark``, in place of an older one with the same mark.

    Raises:
        OSError: It cannot be written, or somebody else's file is there.
    """
    if path.is_file() and mark not in path.read_text(errors="replace"):
        raise FileExistsError(f"{path} was not written here, and is left as it is: choose another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def existing_program(path: str | Path) -> Path:
    """The full path of a program that is there; a bare name is looked for in ``scripts/``, too.

    Raises:
        FileNotFoundError: It is not there.
    """
    here = Path(path)
    if not here.is_file() and here.parent == Path():
        here = find_root() / "scripts" / here
    if not here.is_file():
        raise FileNotFoundError(f"There is no program {path}: write_script makes one")
    return here.absolute()
