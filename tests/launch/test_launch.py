"""What `launch` promises while all goes well, from a real kernel, under both start methods."""

import json
import os
import subprocess
import sys

import psutil
import pytest
from kernels import Kernel

from course_lib import launcher

pytestmark = pytest.mark.timeout(300)


def test_results_of_all_ranks_in_order(kernel):
    reply = kernel.run("""
def where(x, *, y):
    with process_group() as pg:
        return pg.rank, pg.world_size, x + y
launch(where, 1, nprocs=3, y=2)
""")
    assert not reply.error
    assert reply.value == "[(0, 3, 3), (1, 3, 3), (2, 3, 3)]"


def test_functions_classes_and_closures_from_cells(kernel):
    kernel.run("""
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
    def forward(self, x):
        return helper(self.layer(x))

def helper(x):
    return x * FACTOR

FACTOR = 0
class Found(Exception):
    pass
""")
    reply = kernel.run("""
FACTOR = 2.0
def outer(offset):
    class Local:
        def add(self, x):
            return x + offset
    def inner():
        try:
            raise Found
        except Found:
            return Model()(torch.ones(3)).shape, Local().add(1), FACTOR
    return inner
launch(outer(10), nprocs=2)
""")
    assert not reply.error
    assert reply.value == "[(torch.Size([1]), 11, 2.0), (torch.Size([1]), 11, 2.0)]"


def test_an_attribute_named_like_a_part_of_torch(kernel):
    """cloudpickle takes `.classes` for torch.classes, which no pickler knows by itself."""
    reply = kernel.run("""
class Animals:
    classes = ("cat", "dog")
    ops = 3
def count():
    return torch.tensor(len(Animals.classes) + Animals.ops).item()
launch(count, nprocs=2)
""")
    assert not reply.error
    assert reply.value == "[5, 5]"


def test_instances_of_cell_classes_come_back_as_that_class(kernel):
    reply = kernel.run("""
class Point:
    def __init__(self, x): self.x = x
def make():
    return Point(int(os.environ["RANK"]))
points = launch(make, nprocs=2)
[isinstance(p, Point) for p in points], [p.x for p in points]
""")
    assert reply.value == "([True, True], [0, 1])"


def test_dataloader_workers_over_a_dataset_from_a_cell(kernel):
    reply = kernel.run("""
class Squares(torch.utils.data.Dataset):
    def __len__(self): return 12
    def __getitem__(self, i): return i * i
def load():
    loader = torch.utils.data.DataLoader(Squares(), batch_size=4, num_workers=2)
    return sum(int(batch.sum()) for batch in loader)
launch(load, nprocs=2)
""")
    assert not reply.error
    assert reply.value == "[506, 506]"


def test_objects_of_cell_classes_travel_between_ranks(kernel):
    reply = kernel.run("""
class Note:
    text = ""
def swap():
    with process_group() as pg:
        note = Note()
        note.text = f"from {pg.rank}"
        notes = [None] * pg.world_size
        dist.all_gather_object(notes, note)
        return [n.text for n in notes]
launch(swap, nprocs=2)
""")
    assert not reply.error
    assert reply.value == "[['from 0', 'from 1'], ['from 0', 'from 1']]"


def test_output_is_live_labelled_and_plain(kernel, tmp_path):
    go = tmp_path / "go"
    kernel.start(f"""
import subprocess
def talk():
    print("first", os.environ["RANK"])
    while not os.path.exists({str(go)!r}):
        time.sleep(0.01)
    print("to stderr", file=sys.stderr)
    os.write(2, b"from C\\n")
    subprocess.run(["echo", "from a child"])
    print("10%\\r100%")
    print("no newline at the end", end="")
launch(talk, nprocs=2)
""")
    text = kernel.wait_for("first", times=2)  # while both are still inside the function
    assert "[rank 0] first 0\n" in text
    assert "[rank 1] first 1\n" in text
    go.touch()
    reply = kernel.finish()
    assert reply.streams == {"stdout"}
    for rank in (0, 1):
        assert reply.lines(f"[rank {rank}]")[1:] == [
            f"[rank {rank}] {text}"
            for text in ("to stderr", "from C", "from a child", "100%", "no newline at the end")
        ]


def test_a_bar_shows_the_slowest_rank_and_its_metrics(kernel):
    reply = kernel.run("""
def work():
    for i in progress(range(5), "epoch"):
        for _ in progress(range(3), "batch"):
            pass
        report(loss=1.0 / (i + 1))
_ = launch(work, nprocs=2)
""")
    assert not reply.error
    # One output that was replaced: a saved notebook holds the last state and nothing else.
    assert reply.value.startswith("epoch: 100%")
    assert "5/5" in reply.value
    assert "loss=0.2" in reply.value
    assert "batch" not in reply.value
    assert reply.text == ""


def test_the_environment_is_torchruns_plus_the_kernels(kernel):
    reply = kernel.run("""
os.environ["LATELY"] = "set after the first launch"
os.environ.pop("GONE", None)
def look():
    names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR LATELY".split()
    return [os.environ[n] for n in names], "GONE" in os.environ
launch(look, nprocs=2)[1]
""")
    assert reply.value == (
        "(['1', '1', '2', '2', '127.0.0.1', 'set after the first launch'], False)"
    )


def test_a_second_process_group_in_the_same_launch(kernel):
    reply = kernel.run("""
def twice():
    total = torch.zeros(1)
    for _ in range(3):
        with process_group() as pg:
            one = torch.ones(1)
            dist.all_reduce(one)
            total += one
    return total.item()
launch(twice, nprocs=3)
""")
    assert not reply.error
    assert reply.value == "[9.0, 9.0, 9.0]"


def test_plain_init_process_group_works_as_under_torchrun(kernel):
    reply = kernel.run("""
def plain():
    dist.init_process_group("gloo")
    one = torch.ones(1)
    dist.all_reduce(one)
    dist.destroy_process_group()
    return one.item()
launch(plain, nprocs=2)
""")
    assert reply.value == "[2.0, 2.0]"


def test_threads_are_the_cores_shared_out(kernel):
    reply = kernel.run("""
def threads():
    before = torch.get_num_threads()
    with process_group():
        return before, torch.get_num_threads()
from course_lib.group import cores
(launch(threads, nprocs=2) == [(max(1, cores() // 2),) * 2] * 2,
 launch(threads, nprocs=1) == [(cores(),) * 2],
 launch(threads, nprocs=2, threads=3) == [(3, 3)] * 2)
""")
    assert reply.value == "(True, True, True)"


def test_debug_is_in_effect(kernel):
    reply = kernel.run("""
def level():
    with process_group():
        return str(dist.get_debug_level()), os.environ.get("TORCH_DISTRIBUTED_DEBUG")
launch(level, nprocs=2, debug=True) + launch(level, nprocs=1)
""")
    assert reply.value.count("DebugLevel.DETAIL', 'DETAIL'") == 2
    assert "DebugLevel.OFF" in reply.value


def test_debug_names_a_mismatch_on_both_ranks(kernel):
    reply = kernel.run("""
def mismatch():
    with process_group(timeout=20) as pg:
        dist.all_reduce(torch.ones(2 + pg.rank))
launch(mismatch, nprocs=2, debug=True)
""")
    assert "raised RuntimeError: Detected mismatch between collectives on ranks" in reply.error


def test_after_openmp_in_the_kernel(kernel):
    reply = kernel.run("""
x = torch.randn(600, 600)
torch.set_num_threads(2)
y = (x @ x).sum(), torch.sort(x)[0].sum()
def work():
    with process_group():
        z = (torch.randn(600, 600) @ torch.randn(600, 600)).sum()
        dist.all_reduce(z)
    return 1
launch(work, nprocs=2, timeout=30)
""")
    assert reply.value == "[1, 1]"


def test_a_rank_inherits_nothing_from_the_kernel(kernel):
    reply = kernel.run("""
import json
json.mark_of_the_kernel = True
def look():
    import json
    return hasattr(json, "mark_of_the_kernel"), os.getpgid(0) == os.getpid()
launch(look, nprocs=2)
""")
    assert reply.value == "[(False, True), (False, True)]"


def test_garbage_collections_leave_the_servers_objects_alone(kernel, start_method):
    reply = kernel.run("""
import gc, json
def frozen():
    return gc.get_freeze_count(), len(gc.get_objects()), "course_lib._places" in sys.modules
print("counts", json.dumps(launch(frozen, nprocs=2)))
""")
    for count, own, places in json.loads(reply.text.rpartition("counts ")[2]):
        assert not places  # the kernel's business: a rank need not pay for it
        assert start_method == "spawn" or count > 10 * own > 0


def test_the_fork_server_has_what_a_rank_imports_and_runs_nothing(kernel):
    reply = kernel.run("print('In the rank:', *launch(lambda: sorted(sys.modules), nprocs=1)[0])")
    in_rank = set(reply.text.rpartition("In the rank: ")[2].split())
    code = "".join(f"import {name}\n" for name in launcher._PRELOAD) + (
        "import sys, threading\n"
        "print(threading.active_count(), torch.cuda.is_initialized())\n"
        "print(*sys.modules)"
    )
    server = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    state, modules = server.stdout.splitlines()
    assert state == "1 False"
    packages = tuple({name.partition(".")[0] for name in launcher._PRELOAD})
    assert {name for name in in_rank - set(modules.split()) if name.startswith(packages)} == set()
    assert "course_lib._child" in in_rank


def test_an_edited_module_is_fresh_in_the_next_launch(kernel, tmp_path):
    module = tmp_path / "learners_module.py"
    code = f"""
import importlib, sys
sys.path.insert(0, {str(tmp_path)!r}) if {str(tmp_path)!r} not in sys.path else None
sys.dont_write_bytecode = True
import learners_module
importlib.reload(learners_module)
launch(learners_module.answer, nprocs=1)
"""
    module.write_text("def answer(): return 'old'")
    assert kernel.run(code).value == "['old']"
    module.write_text("def answer(): return 'new'")
    os.utime(module, (1, 1))
    assert kernel.run(code).value == "['new']"


def test_source_of_a_cell_function_is_known_in_the_rank(kernel):
    reply = kernel.run("""
import inspect
def me():
    return inspect.getsource(me)
print(launch(me, nprocs=1)[0])
""")
    assert reply.text.startswith("def me():\n")


def test_a_large_result_and_much_output(kernel):
    reply = kernel.run("""
def much():
    for i in range(3000):
        print("x" * 100)
    return torch.arange(5_000_000)
[int(t.sum()) for t in launch(much, nprocs=2)]
""")
    assert reply.value == "[12499997500000, 12499997500000]"
    assert reply.text.count("[rank 1] " + "x" * 100 + "\n") == 3000


def test_odd_network_settings_do_no_harm(kernel):
    reply = kernel.run("""
os.environ["GLOO_SOCKET_IFNAME"] = "nosuch0"
os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "host.invalid", "1"
def work():
    with process_group():
        one = torch.ones(1)
        dist.all_reduce(one)
        return one.item()
result = launch(work, nprocs=2)
for name in ("GLOO_SOCKET_IFNAME", "MASTER_ADDR", "MASTER_PORT"):
    del os.environ[name]
result
""")
    assert reply.value == "[2.0, 2.0]"


def test_only_loopback_listens_during_a_launch(kernel, tmp_path):
    go = tmp_path / "go"
    before = len(listening_sockets(kernel))
    kernel.start(f"""
def hold():
    with process_group() as pg:
        dist.all_reduce(torch.ones(1))
        pair = dist.new_group([0, 1])
        if pg.rank < 2:
            dist.all_reduce(torch.ones(1), group=pair)
        print("connected")
        while not os.path.exists({str(go)!r}):
            time.sleep(0.01)
launch(hold, nprocs=3)
""")
    kernel.wait_for("connected", times=3)
    during = listening_sockets(kernel)
    go.touch()
    assert not kernel.finish().error
    assert len(during) > before  # it does see the store and Gloo
    assert {ip for ip, _ in during} <= {"127.0.0.1", "::1"}
    assert len(listening_sockets(kernel)) == before


def listening_sockets(kernel: Kernel) -> set[tuple[str, int]]:
    found = set()
    for process in [psutil.Process(kernel.pid), *kernel.children()]:
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(tuple(connection.laddr))
    return found


def test_two_kernels_launch_at_once(kernel, new_kernel, start_method):
    other = new_kernel(COURSE_START_METHOD=start_method)
    code = """
def work(n):
    with process_group():
        for _ in range(50):
            x = torch.full((1000,), float(n))
            dist.all_reduce(x)
        return x[0].item()
[launch(work, n, nprocs=2)[1] for n in (1, 2, 3)]
"""
    kernel.start(code)
    other.start(code)
    assert other.finish().value == "[2.0, 4.0, 6.0]"
    assert kernel.finish().value == "[2.0, 4.0, 6.0]"


def test_errors_before_any_process_starts(kernel):
    reply = kernel.run("""
import threading
lock = threading.Lock()
def uses_lock(): return lock
def calls_uses_lock(): return uses_lock()
def fine(a=1): return a
def closure():
    held = threading.Lock()
    def inside(): return held
    return inside
from course_lib._rank import Rank
started = []
real = Rank.start
Rank.start = lambda self: started.append(self) or real(self)
for arguments, options in [
    ((fine,), dict(nprocs=0)), ((fine,), dict(nprocs=True)), ((fine,), dict(nprocs=1.5)),
    ((3,), {}), ((fine,), dict(device="tpu")), ((fine,), dict(start_method="fork")),
    ((fine,), dict(start_method="spwan")), ((fine,), dict(timeout=0)),
    ((fine,), dict(deadline=-1)), ((fine,), dict(threads=0)), ((fine,), dict(nproc=4)),
    ((uses_lock,), {}), ((calls_uses_lock,), {}), ((closure(),), {}), ((fine, lock), {}),
    ((fine,), dict(device="cuda")),
]:
    try:
        launch(*arguments, **options)
    except (TypeError, ValueError) as error:
        print(type(error).__name__, "|", error)
    else:
        print("no error for", arguments, options)
Rank.start = real
print(len(started), "started")
""")
    assert not reply.error
    lines = reply.text.splitlines()
    expected = [
        "ValueError | nprocs=0: at least 1 is needed",
        "TypeError | nprocs=True: a whole number",
        "TypeError | nprocs=1.5: a whole number",
        "TypeError | launch needs a function to run, got int 3",
        "ValueError | device='tpu': choose one of auto, cpu, cuda",
        "ValueError | start_method='fork' (a forked kernel deadlocks",
        "ValueError | start_method='spwan': choose one of auto, spawn, forkserver",
        "ValueError | timeout=0: a positive number",
        "ValueError | deadline=-1: a positive number",
        "ValueError | threads=0: at least 1",
        "TypeError | fine(a=1) cannot be called so: got an unexpected keyword argument 'nproc'",
        "TypeError | cannot send 'uses_lock' to the ranks: the global name 'lock' (a lock)",
        "TypeError | cannot send 'calls_uses_lock' to the ranks: the global name 'lock' (a lock), "
        "used by uses_lock,",
        "TypeError | cannot send 'inside' to the ranks: the captured name 'held' (a lock)",
        "TypeError | cannot send 'fine' to the ranks: argument 0 (a lock)",
        "ValueError | device='cuda' with nprocs=2: this machine has",
    ]
    assert len(lines) == len(expected) + 1
    for line, start in zip(lines, expected, strict=False):
        assert line.startswith(start)
    assert lines[-1] == "0 started"


def test_launch_inside_a_rank_is_refused(kernel):
    reply = kernel.run("""
def nested():
    return launch(print, nprocs=1)
launch(nested, nprocs=1)
""")
    assert "rank 0 raised RuntimeError: launch was called inside a rank" in reply.error
