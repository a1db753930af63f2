"""Exercises of lesson 53: wrong answers are told apart, right ones written differently pass."""

import ast
import os
import re
import shlex
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from torch.distributed.run import get_args_parser

from course_lib import write_slurm
from course_lib._loopback import loopback_store
from course_lib.checks import _batch_jobs, _job_faults, _node_launches, _two_agents
from course_lib.checks import lesson_53 as check
from course_lib.checks._launch_words import read

# ---- 53.1 · Complete the launch of node 1


@pytest.fixture
def no_agents(monkeypatch):
    """For what the words alone decide: the launch at the end is taken to have gone well."""
    monkeypatch.setattr(_two_agents, "start", lambda commands, folder: _two_agents.PLACES)


def options(command):
    return get_args_parser().parse_args(command[1:])


def cut(command):
    """Words of torchrun, and of the program."""
    at = len(command) - len(options(command).training_script_args) - 1
    return command[:at], command[at:]


def put(command, *own):
    mine, program = cut(command)
    return [*mine, *own, *program]


def right(node, command, address):
    return put(command, f"--node-rank={node}", f"--local-addr={address}")


def the_same_everywhere(node, command, address):
    return list(command)


def changes_one_spelling(node, command, address):
    return [re.sub(r"^--node-rank=0$", f"--node-rank={node}", word) for word in command]


def changes_where_it_stands(node, command, address):
    text = re.sub(r"(--node[-_]rank[= ])0", rf"\g<1>{node}", shlex.join(command))
    return shlex.split(text)


def says_it_first(node, command, address):
    return ["torchrun", f"--node-rank={node}", *command[1:]]


def says_it_last(node, command, address):
    return [*command, f"--node-rank={node}"]


def says_it_behind_the_program(node, command, address):
    mine, program = cut(command)
    return [*mine, program[0], f"--node-rank={node}", *program[1:]]


def every_zero(node, command, address):
    words = [re.sub(r"^(--node[-_]rank=)0$", rf"\g<1>{node}", word) for word in command]
    return put([str(node) if word == "0" else word for word in words])


def counts_from_one(node, command, address):
    return right(node + 1, command, address)


def always_node_1(node, command, address):
    return right(1, command, address)


def counts_ranks(node, command, address):
    return right(node * int(options(command).nproc_per_node), command, address)


def waits_at_home(node, command, address):
    if options(command).rdzv_backend == "static":
        return put(right(node, command, address), f"--master-addr={address}")
    return put(right(node, command, address), f"--rdzv-endpoint={address}:29400")


def waits_at_home_with_c10d(node, command, address):
    if options(command).rdzv_backend == "static":
        return right(node, command, address)
    return put(right(node, command, address), f"--rdzv-endpoint={address}:29400")


def replaces_the_address(node, command, address):
    args = options(command)
    first = args.rdzv_endpoint.partition(":")[0] or args.master_addr
    return right(node, [word.replace(first, address) for word in command], address)


def replaces_it_but_where_they_meet(node, command, address):
    first = options(command).rdzv_endpoint.partition(":")[0] or "nowhere"
    words = [w if w.startswith("--rdzv") else w.replace(first, address) for w in command]
    return right(node, words, address)


def meets_on_localhost(node, command, address):
    return put(right(node, command, address), "--master-addr=127.0.0.1")


def forgets_where(node, command, address):
    words = [word for word in command if not word.startswith("--master-addr")]
    return right(node, words, address)


def meets_at_another_port(node, command, address):
    return put(right(node, command, address), "--master-port=29600")


def takes_a_new_id(node, command, address):
    return put(right(node, command, address), f"--rdzv-id={uuid.uuid4().hex}")


def an_id_each_with_c10d(node, command, address):
    own = [f"--rdzv-id=node-{node}"] if "--rdzv-backend=c10d" in command else []
    return put(right(node, command, address), *own)


def counts_all_ranks_as_nodes(node, command, address):
    args = options(command)
    n = int(args.nnodes) * int(args.nproc_per_node)
    return put(right(node, command, address), f"--nnodes={n}")


def counts_the_others(node, command, address):
    return put(right(node, command, address), f"--nnodes={int(options(command).nnodes) - 1}")


def starts_all_ranks(node, command, address):
    args = options(command)
    n = int(args.nnodes) * int(args.nproc_per_node)
    return put(right(node, command, address), f"--nproc-per-node={n}")


def without_ranks(node, command, address):
    text = re.sub(r"--nproc[-_]per[-_]node[= ]\d", "", shlex.join(command))
    return right(node, shlex.split(text), address)


def without_the_programs_flags(node, command, address):
    mine, program = cut(right(node, command, address))
    return [*mine, program[0]]


def without_the_program(node, command, address):
    mine, program = cut(right(node, command, address))
    return [*mine, *program[1:]]


def flags_before_the_program(node, command, address):
    mine, program = cut(right(node, command, address))
    return [*mine, *program[1:], program[0]]


def without_the_module_flag(node, command, address):
    return [word for word in right(node, command, address) if word != "-m"]


def filters_nothing(node, command, address):
    return put(right(node, command, address), "--local-ranks-filter=0")


def runs_the_program(node, command, address):
    return ["python", *cut(command)[1]]


def a_module_of_that_name(node, command, address):
    return ["python", "-m", "torchrun", *right(node, command, address)[1:]]


def a_path_to_something_else(node, command, address):
    return ["/opt/torchrun/bin/mpirun", *right(node, command, address)[1:]]


def without_restarts(node, command, address):
    text = re.sub(r"--max_restarts 1 ", "", shlex.join(command))
    return right(node, shlex.split(text), address)


def node_0s_own_address(node, command, address):
    return put(command, f"--node-rank={node}")


def loopback_as_its_own(node, command, address):
    return put(right(node, command, address), "--local-addr=127.0.0.1")


def alone(node, command, address):
    return put(right(node, command, address), "--standalone")


def always_c10d(node, command, address):
    args = options(command)
    end = args.rdzv_endpoint or f"{args.master_addr}:{args.master_port}"
    return put(right(node, command, address), "--rdzv-backend=c10d", f"--rdzv-endpoint={end}")


def always_static(node, command, address):
    return put(right(node, command, address), "--rdzv-backend=static")


def hosts_as_well(node, command, address):
    return put(right(node, command, address), "--rdzv-conf=is_host=1")


def loses_a_setting(node, command, address):
    return put(right(node, command, address), "--rdzv-conf=is_host=0")


def one_text(node, command, address):
    return shlex.join(right(node, command, address))


def prints_it(node, command, address):
    print(shlex.join(right(node, command, address)))


def a_number_among_words(node, command, address):
    return put(command, "--node-rank", node)


def one_word_with_a_space(node, command, address):
    return put(command, f"--node-rank {node}")


def flags_only(node, command, address):
    return right(node, command, address)[1:]


def nothing_at_all(node, command, address):
    return []


def a_misspelt_flag(node, command, address):
    return put(command, f"--noderank={node}")


def a_number_in_words(node, command, address):
    return put(command, "--node-rank=one")


def nodes_in_words(node, command, address):
    return put(command, f"--node-rank={node}", "--nnodes=all")


def asks_for_help(node, command, address):
    return put(command, "--help")


def changes_the_list(node, command, address):
    at = len(cut(command)[0])
    command[at:at] = [f"--node-rank={node}", f"--local-addr={address}"]
    return command


def raises(node, command, address):
    return command["node_rank"]


def takes_two(node, command):
    return command


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(the_same_everywhere, "two nodes with the number 0", id="same words"),
        pytest.param(changes_one_spelling, "in pairs of words, node 1: the node's", id="one way"),
        pytest.param(changes_where_it_stands, "did not say its number", id="where it stands"),
        pytest.param(says_it_first, "the last one counts", id="first"),
        pytest.param(says_it_last, "--node-rank=1 stands behind the program", id="last"),
        pytest.param(says_it_behind_the_program, "stands behind the program", id="behind"),
        pytest.param(every_zero, "same flags: --first 0 --batch 2", id="every zero"),
        pytest.param(counts_from_one, "nodes count from 0 to 1 (got 2)", id="from one"),
        pytest.param(always_node_1, "node 2: the node's number is 2", id="always 1"),
        pytest.param(counts_ranks, "2 is the global rank of its first process", id="ranks"),
        pytest.param(waits_at_home, "10.0.0.2 is this node's own address", id="at home"),
        pytest.param(waits_at_home_with_c10d, "wait for the others at home", id="home, c10d"),
        pytest.param(replaces_the_address, "this node's own address", id="replaces"),
        pytest.param(replaces_it_but_where_they_meet, "given the same flags", id="in flags"),
        pytest.param(meets_on_localhost, "127.0.0.1 is whatever machine", id="localhost"),
        pytest.param(forgets_where, "is whatever machine one is on", id="no address"),
        pytest.param(meets_at_another_port, "one port for all", id="port"),
        pytest.param(takes_a_new_id, "who comes with another --rdzv-id waits alone", id="new id"),
        pytest.param(an_id_each_with_c10d, "got node-1, not job-20", id="an id each"),
        pytest.param(counts_all_ranks_as_nodes, "not the 6 ranks of them all", id="world size"),
        pytest.param(counts_the_others, "this one too", id="the others"),
        pytest.param(starts_all_ranks, "each node starts 1 ranks of its own", id="all ranks"),
        pytest.param(without_ranks, "--nproc-per-node=2 is lost", id="no ranks"),
        pytest.param(without_the_programs_flags, "--epochs=3 --seed=0 is lost", id="no flags"),
        pytest.param(without_the_program, "the program is not there", id="no program"),
        pytest.param(flags_before_the_program, "the program's behind it", id="flags before"),
        pytest.param(
            without_the_module_flag, "--module is True there, and not given here", id="no module"
        ),
        pytest.param(filters_nothing, "is not given there, and 0 here", id="a filter"),
        pytest.param(runs_the_program, "it begins with torchrun (got 'python", id="no torchrun"),
        pytest.param(a_module_of_that_name, "it begins with torchrun", id="another module"),
        pytest.param(a_path_to_something_else, "it begins with torchrun", id="another program"),
        pytest.param(without_restarts, "--max-restarts is 1 there, and 0 here", id="no restarts"),
        pytest.param(node_0s_own_address, "where the others find this node", id="its address"),
        pytest.param(loopback_as_its_own, "127.0.0.1 is another node's", id="127.0.0.1"),
        pytest.param(alone, "meets nobody", id="standalone"),
        pytest.param(always_c10d, "the others meet by --rdzv-backend=static", id="c10d"),
        pytest.param(always_static, "the others meet by --rdzv-backend=c10d", id="static"),
        pytest.param(hosts_as_well, "would stay empty", id="is_host"),
        pytest.param(loses_a_setting, "--rdzv-conf is another one", id="settings"),
        pytest.param(one_text, "a list of words, not one text", id="text"),
        pytest.param(prints_it, "return a list of words (got None)", id="prints"),
        pytest.param(a_number_among_words, "every word is a text, and 1 is none", id="number"),
        pytest.param(one_word_with_a_space, "is one word with a space", id="space"),
        pytest.param(flags_only, "it begins with torchrun", id="flags only"),
        pytest.param(nothing_at_all, "it begins with torchrun", id="nothing"),
        pytest.param(a_misspelt_flag, "unrecognized arguments: --noderank=1", id="misspelt"),
        pytest.param(a_number_in_words, "invalid int value: 'one'", id="one"),
        pytest.param(nodes_in_words, "--nnodes is a number", id="all nodes"),
        pytest.param(asks_for_help, "torchrun refuses it", id="help"),
        pytest.param(changes_the_list, "node 0's words are still needed", id="in place"),
        pytest.param(raises, "list indices must be integers", id="raises"),
        pytest.param(takes_two, "no node is asked but 1", id="takes two"),
    ],
)
def test_launch_of_rejects(rejects, no_agents, answer, says):
    rejects(check.launch_of, answer, says)


@pytest.mark.faults
def test_launch_of_ends_what_does_not_end(rejects, impatient):
    def never_comes_back(node, command, address):
        while True:
            time.sleep(0.01)

    rejects(check.launch_of, never_comes_back, "it hangs")


def what_has_to_differ(node, command, address):
    args = options(command)
    if args.rdzv_backend != "static":
        if args.local_addr is None:
            return command
        return [f"--local-addr={address}" if w.startswith("--local") else w for w in command]
    text = re.sub(r"--node[-_]rank[= ]0", "", shlex.join(command))
    return shlex.split(text.replace("torchrun", f"torchrun --node_rank {node}", 1))


def all_anew(node, command, address):
    args = options(command)
    words = ["--nproc_per_node", args.nproc_per_node, "--nnodes", args.nnodes]
    if args.rdzv_backend == "static":
        end = f"{args.master_addr}:{args.master_port}"
        words += ["--node_rank", str(node), f"--rdzv_endpoint={end}"]
    else:
        words += ["--rdzv_id", args.rdzv_id, "--rdzv-backend=c10d"]
        words += ["--rdzv_endpoint", args.rdzv_endpoint, "--local_addr", address]
        words += ["--rdzv-conf", ",".join(filter(None, [args.rdzv_conf, "is_host=false"]))]
    words += ["--max-restarts", str(args.max_restarts), *["-m"] * args.module]
    return ("torchrun", *words, args.training_script, *args.training_script_args)


def as_a_module(node, command, address):
    return ["python3", "-m", "torch.distributed.run", *right(node, command, address)[1:]]


def by_its_path(node, command, address):
    return ["/usr/local/bin/torchrun", *right(node, command, address)[1:]]


def as_a_module_unbuffered(node, command, address):
    python = [sys.executable, "-u", "-X", "dev", "-Wignore", "-Bm", "torch.distributed.run"]
    return [*python, *right(node, command, address)[1:]]


def without_settings_that_are_0(node, command, address):
    words = right(node, command, address)
    return [word.replace("is_host=0,", "") for word in words]


@pytest.mark.parametrize(
    "answer",
    [
        right,
        what_has_to_differ,
        all_anew,
        by_its_path,
        as_a_module,
        as_a_module_unbuffered,
        without_settings_that_are_0,
    ],
)
def test_launch_of_accepts(accepts, no_agents, answer):
    accepts(check.launch_of, answer)


@pytest.mark.slow
@pytest.mark.parametrize("answer", [right, as_a_module_unbuffered])
def test_launch_of_really_launches(verdict, answer):
    said = verdict(check.launch_of, answer)
    assert "✓ node, local rank and rank: 0 0 0, 0 1 1, 1 0 2, 1 1 3\n" in said
    assert "✗" not in said


def test_ranks_in_another_order_are_no_launch_of_that_node(rejects, monkeypatch):
    turned = [place._replace(node=1 - place.node) for place in _two_agents.PLACES]
    monkeypatch.setattr(_two_agents, "start", lambda commands, folder: turned)
    rejects(check.launch_of, right, "node 0 has the first ranks")


def test_agents_that_fail_are_told(rejects, monkeypatch):
    monkeypatch.setattr(_two_agents, "start", lambda commands, folder: "rank 1 is ill")
    rejects(check.launch_of, right, "rank 1 is ill")


@pytest.mark.faults
@pytest.mark.slow
def test_agents_that_do_not_meet_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(_two_agents, "_DEADLINE", 8)
    with loopback_store() as port:
        case = _two_agents.case(tmp_path, port)
        wrong = put(right(1, case.words(), "127.0.0.2"), "--rdzv-id=another")
        assert _two_agents.start([case.words(), wrong], tmp_path) == "not done after 8 s (deadline)"
    program = str(tmp_path / "program.py")
    assert not [p for p in psutil.process_iter(["cmdline"]) if program in (p.info["cmdline"] or [])]


def test_node_0s_words_are_read_as_torchrun_reads_them(monkeypatch):
    monkeypatch.setenv("PET_MAX_RESTARTS", "7")  # stands for the flag where there is none
    launches = [read(case.words()) for case in _node_launches.CASES]
    nodes = [len(case.addresses) for case in _node_launches.CASES]
    assert [launch.nodes for launch in launches] == [(n, n) for n in nodes]
    assert [launch.rest["max_restarts"] for launch in launches] == [0, 1, 0, 0, 0]
    assert [launch.ranks for launch in launches] == ["1", "2", "2", "2", "1"]
    hosts = [case.addresses[0] for case in _node_launches.CASES]
    assert [launch.host for launch in launches] == hosts


# ---- 53.2 · Read an sbatch file

FAULTY = r"""#!/bin/bash
#SBATCH --job-name=train
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=6
#SBATCH --output=train.out
set -euo pipefail
#SBATCH --time=10:00:00

srun bash -c 'torchrun --nnodes=4 --nproc-per-node=4 --rdzv-backend=c10d \
    --rdzv-id=$RANDOM --rdzv-endpoint=$(hostname):29500 train.py --epochs=90'
"""
GOOD = r"""#!/bin/bash
#SBATCH --job-name=train
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-task=4
#SBATCH --cpus-per-task=24
#SBATCH --output=%x-%j.out
#SBATCH --time=10:00:00
set -euo pipefail

srun --cpus-per-task="$SLURM_CPUS_PER_TASK" torchrun --nnodes="$SLURM_JOB_NUM_NODES" \
    --nproc-per-node=4 --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" \
    --rdzv-endpoint="$(hostname)":29500 train.py --epochs=90
"""


def but(*changes, of=GOOD):
    """An answer: a file with some texts replaced."""
    for old, new in changes:
        assert old in of, old
        of = of.replace(old, new)
    return lambda: of


START = GOOD[GOOD.index("srun") :]
SRUN = START[: START.index("torchrun")]
IN_QUOTES = START.replace("torchrun", "bash -c 'torchrun").rstrip().replace('"', "") + "'\n"
STATIC = SRUN + "bash -c 'torchrun --nnodes=3 --nproc-per-node=4 --node-rank=$SLURM_NODEID "
STATIC += "--master-addr='$(hostname)' --master-port=29500 train.py --epochs=90'\n"
PER_GPU = (("cpus-per-task=24", "cpus-per-gpu=6"), (SRUN, "srun "))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(but(of=FAULTY), "reads no further than the first command", id="as it was"),
        pytest.param(but(("#SBATCH --time=10:00:00\n", "")), "without --time", id="no time"),
        pytest.param(but(("10:00:00", "10:00")), "is 10 minutes", id="minutes"),
        pytest.param(but(("10:00:00", "10")), "is 10 minutes", id="10"),
        pytest.param(but(("10:00:00", "01:00:00")), "10 hours are", id="an hour"),
        pytest.param(but(("#SBATCH --time", "# SBATCH --time")), "no further", id="# SBATCH"),
        pytest.param(but(("--nodes=3", "--nodes=4")), "--nodes=3 (got 4)", id="nodes"),
        pytest.param(but(("--nodes=3", "--nodes=1-3")), "when it has 1", id="1 to 3 nodes"),
        pytest.param(but(("--nodes=3", "--nodes=3-4")), "--nodes=3 (got 3-4)", id="3 to 4 nodes"),
        pytest.param(but(("--nodes=3", "--nodes=3 --array=0-2")), "--array=0-2 makes", id="array"),
        pytest.param(but(("--nodes=3", "-N3 -a 0-2")), "--array=0-2 makes", id="-a"),
        pytest.param(but(("#SBATCH --nodes=3\n", "")), "--nodes=3 (got None)", id="no nodes"),
        pytest.param(but(("%x-%j.out", "train.out")), "overwrites train.out", id="output"),
        pytest.param(but(("%x-%j", "%x")), "overwrites %x.out", id="by name"),
        pytest.param(
            but(("--output=%x", "--error=train.err\n#SBATCH --output=%x")),
            "overwrites train.err",
            id="errors",
        ),
        pytest.param(but(("srun ", "srun -e train.err ")), "overwrites train.err", id="srun's"),
        pytest.param(but(("-per-node=1", "-per-node=4")), "4 times a node here", id="tasks"),
        pytest.param(
            but(("-per-node=1", "-per-node=4"), ("srun ", "srun --ntasks-per-node=1 ")),
            "4 times a node here",
            id="srun's own ntasks-per-node",
        ),
        pytest.param(but((SRUN, "")), "runs on the first node only", id="no srun"),
        pytest.param(but(("srun ", "srun -N1 -n1 ")), "no agent on gpu-11, gpu-12", id="one"),
        pytest.param(but(("srun ", "srun --nodes 2 --ntasks 2 ")), "agent on gpu-12", id="two"),
        pytest.param(but(("torchrun", "python")), "before all were started", id="python"),
        pytest.param(
            but(("torchrun", "python torch.distributed.run")),
            "it begins with torchrun (got 'python torch",
            id="without -m",
        ),
        pytest.param(but(("torchrun", "torchrum")), "torchrum", id="misspelt"),
        pytest.param(but(("=90", "=90 || true")), "|| true hides it", id="|| true"),
        pytest.param(
            but(("set -euo", "set -uo"), ("=90", "=90\necho done")),
            "another command behind srun may",
            id="echo",
        ),
        pytest.param(but(("=90", "=90 &\nwait")), "the job fails\n  hint: each", id="wait"),
        pytest.param(but(("$SLURM_JOB_ID", "$JOB")), "JOB: unbound variable", id="unbound"),
        pytest.param(but(("--nproc-per", "--nprocs-per")), "unrecognized arguments", id="flag"),
        pytest.param(but(('"$SLURM_JOB_NUM_NODES"', "4")), "they wait for 4 nodes", id="4"),
        pytest.param(but(('"$SLURM_JOB_NUM_NODES"', "12")), "not the 12 ranks", id="12"),
        pytest.param(but(('"$SLURM_JOB_NUM_NODES"', "1")), "the door closed", id="1"),
        pytest.param(but(('"$SLURM_JOB_NUM_NODES"', "1:3")), "begins with 1", id="1:3"),
        pytest.param(but(("--nnodes", "--standalone --nnodes")), "meets nobody", id="alone"),
        pytest.param(but(("--nproc-per-node=4", "")), "a rank a GPU", id="no ranks"),
        pytest.param(but(("--nproc-per-node=4", "--nproc-per-node=12")), "got --nproc", id="all"),
        pytest.param(but(('"$(hostname)"', "localhost")), "at home", id="localhost"),
        pytest.param(but(('--rdzv-endpoint="$(hostname)":29500', "")), "at home", id="nowhere"),
        pytest.param(but(('"$(hostname)"', "gpu-07")), "the first node of this job", id="a name"),
        pytest.param(but((START, IN_QUOTES)), "in single quotes a $(…)", id="quotes"),
        pytest.param(
            but((START, IN_QUOTES), ("$(hostname)", "'$(hostname)'"), ("$SLURM_JOB_ID", "$RANDOM")),
            "an --rdzv-id of its own",
            id="random",
        ),
        pytest.param(but((":29500", ":0")), "0 would be any one (got 0)", id="port 0"),
        pytest.param(but((":29500", ":65536")), "up to 65535", id="port 65536"),
        pytest.param(but((":29500", ":port")), "(got port)", id="a word as port"),
        pytest.param(but((":29500", ":")), "(got )", id="an empty port"),
        pytest.param(
            but(("--nnodes", "--local-addr=$(hostname) --nnodes")),
            "and gpu-11 says gpu-07",
            id="node 0's address",
        ),
        pytest.param(
            but(("--nnodes", "--local-addr=localhost --nnodes")),
            "and gpu-07 says localhost",
            id="localhost as its own",
        ),
        pytest.param(
            but(("--nnodes", "--rdzv-conf=is_host=1 --nnodes")),
            "and that of gpu-11 stays empty",
            id="all host",
        ),
        pytest.param(
            but(("--nnodes", "--rdzv-conf=is_host=0 --nnodes")),
            "if gpu-07 opens no store",
            id="none hosts",
        ),
        pytest.param(but(("--rdzv-backend=c10d", "")), "numbers from 0 to 2", id="static"),
        pytest.param(but((START, STATIC), ("NODEID", "JOB_NUM_NODES")), "got [3, 3, 3]", id="n"),
        pytest.param(
            but((START, STATIC), ("$SLURM_NODEID", "$((2 - SLURM_NODEID))")),
            "node 0 is the one whose address",
            id="backwards",
        ),
        pytest.param(but(("c10d", "etcd")), "the rendezvous is c10d", id="etcd"),
        pytest.param(but((" --epochs=90", "")), "train.py --epochs=90 (got", id="no flags"),
        pytest.param(but(("train.py", "test.py")), "(got test.py --epochs=90)", id="program"),
        pytest.param(but(("--gpus-per-task=4", "--gpus-per-task=1")), "has 1, and", id="a GPU"),
        pytest.param(but(("#SBATCH --gpus-per-task=4\n", "")), "task has 0, and", id="no GPUs"),
        pytest.param(but(("gpus-per-task=4", "gpus=4")), "task has 1, and", id="4 GPUs in all"),
        pytest.param(but(("cpus-per-task=24", "cpus-per-task=6")), "6 a rank make 24", id="6"),
        pytest.param(
            but(("#SBATCH --cpus-per-task=24\n", ""), (SRUN, "srun ")),
            "the job has 1 a node",
            id="no cores",
        ),
        pytest.param(
            but(("cpus-per-task=24", "cpus-per-task=6"), (SRUN, "srun -c 24 ")),
            "the job has 6 a node",
            id="only srun wants cores",
        ),
        pytest.param(
            but((SRUN, "srun -c 48 ")),
            "srun asks for 48 a node, and the job has 24",
            id="srun wants more cores",
        ),
        pytest.param(
            but((SRUN, "srun ")), 'tell it again, srun --cpus-per-task="$SLURM', id="not again"
        ),
        pytest.param(
            but((SRUN, "SRUN_CPUS_PER_TASK=6 srun ")), "the agent's task has 6", id="6 again"
        ),
        pytest.param(
            but(("cpus-per-task=24", "cpus-per-gpu=5"), PER_GPU[1]), "has 20 a node", id="5 a GPU"
        ),
        pytest.param(
            but(PER_GPU[0], (SRUN, "srun --cpus-per-gpu=5 ")), "task has 20", id="srun: 5 a GPU"
        ),
        pytest.param(
            but(("cpus-per-task=24", "cpus-per-task=24 --cpus-per-gpu=6")), "not both", id="both"
        ),
        pytest.param(
            but(("gpus-per-task=4", "gpus-per-node=1"), ("srun ", "srun --gpus-per-task=4 ")),
            "srun asks for 4 a node, and the job has 1",
            id="srun wants more GPUs",
        ),
        pytest.param(
            but(
                ("ntasks-per-node=1", "ntasks-per-node=4"),
                ("gpus-per-task=4", "gpus-per-task=1"),
                ("srun ", "srun --ntasks=3 --gpus-per-task=4 "),
            ),
            "if the job has asked for 1 a task",
            id="srun wants more GPUs a task",
        ),
        pytest.param(but(("#!/bin/bash\n", "")), "sbatch wants #!/bin/bash", id="no shell"),
        pytest.param(but(("90\n", "90'\n")), "looking for matching", id="a quote"),
        pytest.param(lambda: "", "sbatch wants", id="empty"),
        pytest.param(lambda: None, "return the text of the file (got None)", id="None"),
        pytest.param(lambda: GOOD.encode(), "return the text of the file (got b'#!", id="bytes"),
        pytest.param(lambda: 1 / 0, "division by zero", id="raises"),
    ],
)
def test_mended_job_rejects(rejects, answer, says):
    rejects(check.mended_job, answer, says)


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (but(of=FAULTY), "a comment like others, and the job gets the cluster's usual time"),
        (
            but((START, IN_QUOTES), ("$(hostname)", "'$(hostname)'"), ("$SLURM_JOB_ID", "$RANDOM")),
            "and waits under it alone: in single quotes $RANDOM is drawn on each node",
        ),
    ],
)
def test_a_hint_in_two_pieces_comes_whole(verdict, answer, end):
    assert verdict(check.mended_job, answer).rstrip().endswith(end)


def test_no_hint_is_cut_off():
    """Without brackets a second line of a text is a statement of its own, and says nothing."""
    for file in Path(_job_faults.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text())
        documented = ast.Module | ast.ClassDef | ast.FunctionDef
        known = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented)]
        alone = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)]
        texts = [node for node in alone if isinstance(node.value, ast.Constant | ast.JoinedStr)]
        odd = [f"{file.name}:{node.lineno}" for node in texts if node not in known]
        assert not odd


@pytest.mark.faults
def test_a_file_that_ends_only_if_all_is_well(rejects, monkeypatch):
    monkeypatch.setattr(_batch_jobs, "PATIENCE", 4)
    tries = GOOD.replace("srun", "until srun").rstrip() + "; do sleep 60; done\n"

    rejects(check.mended_job, lambda: tries, "when its agents fail, the file does not end")


@pytest.mark.faults
def test_a_file_that_does_not_end_leaves_nothing(rejects, monkeypatch):
    monkeypatch.setattr(_batch_jobs, "PATIENCE", 4)
    seconds = f"{100_000 + os.getpid()}"
    waits = GOOD.replace("srun", f"sleep {seconds} & sleep {seconds}\nsrun")

    rejects(check.mended_job, lambda: waits, "it does not end")
    waits = GOOD.replace("srun", f'[ "$SLURM_JOB_ID" = 4711 ] || sleep {seconds}\nsrun')
    rejects(check.mended_job, lambda: waits, "it does not end")
    assert not [p for p in psutil.process_iter(["cmdline"]) if seconds in (p.info["cmdline"] or [])]


IN_FRONT = 'set -euo pipefail\nhead=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
LOOP = r"""rank=0
for node in $(scontrol show hostnames); do
    srun -N 1 -n 1 -c 24 -w "$node" torchrun --nnodes 3 --nproc_per_node gpu --node_rank "$rank" \
        --master_addr "$SLURM_LAUNCH_NODE_IPADDR" --master_port 29500 train.py --epochs 90 &
    started[rank]=$!
    rank=$((rank + 1))
done
for one in "${started[@]}"; do
    wait "$one"
done
"""
ASKS_THE_FIRST = IN_FRONT + 'head=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address)\n'


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(but(), id="ours"),
        pytest.param(but((START, STATIC)), id="static"),
        pytest.param(but((START, LOOP)), id="a loop, in the background"),
        pytest.param(
            but(("set -euo pipefail\n", IN_FRONT), ("$(hostname)", "$head")), id="scontrol"
        ),
        pytest.param(
            but(("set -euo pipefail\n", ASKS_THE_FIRST), ("$(hostname)", "$head")), id="address"
        ),
        pytest.param(
            but((START, IN_QUOTES.replace("'torch", '"torch').replace("90'", '90"'))),
            id="double quotes",
        ),
        pytest.param(but(('"$(hostname)"', "$SLURMD_NODENAME")), id="SLURMD_NODENAME"),
        pytest.param(but(('"$(hostname)"', "$HOSTNAME")), id="HOSTNAME"),
        pytest.param(but(('"$SLURM_JOB_ID"', "$RANDOM")), id="drawn once"),
        pytest.param(but(("torchrun", "python -m torch.distributed.run")), id="a module"),
        pytest.param(but(("torchrun", "python -u -m torch.distributed.run")), id="unbuffered"),
        pytest.param(
            but(("#SBATCH --gpus", "  # for each agent\n\t#SBATCH --nodes=9\n#SBATCH --gpus")),
            id="an indented comment",
        ),
        pytest.param(but((":29500", "")), id="the usual port"),
        pytest.param(but(("--nodes=3", "--nodes=3-3")), id="3 to 3 nodes"),
        pytest.param(but(*PER_GPU), id="cores a GPU"),
        pytest.param(
            but(PER_GPU[0], ("gpus-per-task=4", "gpus=12"), (SRUN, "srun ")), id="cores of 12 GPUs"
        ),
        pytest.param(
            but((SRUN, 'export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"\nsrun ')),
            id="SRUN_CPUS_PER_TASK",
        ),
        pytest.param(
            but(("--output=%x", "--error=%x-%j.err\n#SBATCH --output=%x")), id="two outputs"
        ),
        pytest.param(but(("srun ", 'srun -o "out.$SLURM_JOB_ID" ')), id="srun's output"),
        pytest.param(but(("=90", "=90 &\nwait $!")), id="waits for what it started"),
        pytest.param(
            but(
                (START, IN_QUOTES),
                ("$(hostname)", "'$(hostname)'"),
                ("--nnodes", "--local-addr=$(hostname -i) --nnodes"),
                ("--rdzv-id", "--rdzv-conf=is_host=$((SLURM_NODEID == 0)) --rdzv-id"),
            ),
            id="its own address",
        ),
        pytest.param(
            but(("set -euo", "module load cuda\nsource .venv/bin/activate\nset -euo")), id="module"
        ),
        pytest.param(
            but(
                ("--nodes=3", "-N 3 # nodes"),
                ("--ntasks-per-node=1", "-n3"),
                ("--gpus-per-task=4", "--gres=gpu:a100:4"),
                ("--cpus-per-task=24", "-c24 --exclusive"),
                ("--time=10:00:00", "-t 0-10"),
                ("#SBATCH --output=%x-%j.out\n", ""),
            ),
            id="short options",
        ),
        pytest.param(
            but(
                ("--ntasks-per-node=1", "--ntasks-per-node=4"),
                ("--gpus-per-task=4", "--gpus-per-node=4"),
                ("--cpus-per-task=24", "--cpus-per-task=6"),
                (SRUN, "srun --ntasks=3 --ntasks-per-node=1 -K -c $((4 * 6)) "),
            ),
            id="srun's own options",
        ),
        pytest.param(
            but(("#SBATCH --ntasks-per-node=1\n", ""), ("gpus-per-task=4", "gpus=12")), id="12 GPUs"
        ),
    ],
)
def test_mended_job_accepts(accepts, answer):
    accepts(check.mended_job, answer)


def test_mended_job_accepts_what_write_slurm_writes(accepts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    text = write_slurm("train.py", nprocs=4, nnodes=3, device="cuda", minutes=600, epochs=90)
    text = text.read_text().replace("--cpus-per-task=4", "--cpus-per-task=24")
    accepts(check.mended_job, lambda: text)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:30", 90.5),
        ("1:30:00", 90),
        ("1-2", 1560),
        ("1-2:30", 1590),
        ("1-2:30:30", 1590.5),
        ("tomorrow", None),
        ("", None),
    ],
)
def test_how_slurm_writes_a_time(text, minutes):
    assert _batch_jobs.minutes(text) == minutes


# ---- all


def stub(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize("name", ["launch_of", "mended_job"])
def test_a_stub_is_not_done_yet(verdict, name):
    assert "○ not done yet" in verdict(getattr(check, name), stub)
