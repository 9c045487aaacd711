"""The benchmark's protocol for peers in Python; `xtask/src/bench/protocol.rs` describes it.

Flow: a peer's file calls `main`, which serves, or answers each round that it reads from standard input. A peer has
`serve(address)`, which starts threads that serve and returns their address, and `connect(address)`, which returns its
settings and a function that runs a round. A process ends with its parent.
"""

import collections
import ctypes
import os
import signal
import sys
import threading
import time

MAX_LATENCIES = 20_000
SMALL_BYTES = 1 << 10
DICT_ARRAYS = 64
BATCH = 32

# The bytes of a policy's answer.
ACTION_BYTES = 4

ABOUT_BATCHES = ('policy', 'keeping_policy', 'batched_policy', 'crowd_policy', 'pool_source', 'batched_source')

# Ends a round whose small calls never end within a large one, before the harness gives up.
MAX_BESIDE_SECONDS = 40

Round = collections.namedtuple('Round', 'workload bytes messages in_flight')


class Unsupported(Exception):
    """The peer does not support a workload."""


def main(serve, connect, has_batches=False):
    """Runs a peer's process."""
    follow_parent()
    command, address = sys.argv[1:]
    if command == 'serve':
        say(f'ready {serve(address)}')
        sys.stdin.read()
        return
    settings, run = connect(address)
    tunables = os.environ.get('GLIBC_TUNABLES')
    say(f'ready {settings}' + (f'; {tunables}' if tunables else ''))
    for line in sys.stdin:
        say(answer(line, run, has_batches))


def answer(line, run, has_batches):
    """Runs the round of a line, and returns the line of its answer."""
    try:
        round = parse(line)
        if round.workload in ABOUT_BATCHES and not has_batches:
            raise Unsupported('it has no batched functions')
        return run(round)
    except Unsupported as why:
        return f'unsupported {one_line(why)}'
    except Exception as error:  # The report shows any exception of a library.
        return f'failed {type(error).__name__} {one_line(error)}'


def parse(line):
    word, workload, *numbers = line.split()
    round = Round(workload, *map(int, numbers))
    if word != 'round' or round.messages < 1 or round.in_flight < 1:
        raise ValueError(f'no round: {line}')
    return round


def one_line(text):
    return ' '.join(str(text).split())


def say(line):
    print(line, flush=True)


def follow_parent():
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def done(start, latencies):
    elapsed = time.perf_counter_ns() - start
    return ' '.join(map(str, ['done', elapsed, *latencies]))


def check(round, result_bytes):
    """Raises an exception if the result does not have the right size."""
    if round.workload == 'batched_policy':
        wanted = ACTION_BYTES
    else:
        wanted = 0 if round.workload in ('sink', 'dict', 'beside_argument') else round.bytes
    if result_bytes != wanted and (wanted or result_bytes > 1):
        raise ValueError(f'an answer of {result_bytes} bytes to {round}')


def exchange(round, send, wait):
    """Keeps `in_flight` calls open. `send` returns a call, and `wait` waits for it and returns the bytes of its result."""
    latencies, open_calls, sent = [], collections.deque(), 0
    wants_latencies = round.in_flight == 1 and round.messages <= MAX_LATENCIES
    start = time.perf_counter_ns()
    while sent < round.messages or open_calls:
        before = time.perf_counter_ns() if wants_latencies else 0
        while sent < round.messages and len(open_calls) < round.in_flight:
            open_calls.append(send())
            sent += 1
        check(round, wait(open_calls.popleft()))
        if wants_latencies:
            latencies.append(time.perf_counter_ns() - before)
    return done(start, latencies)


def beside(round, large, small):
    """Measures small calls that begin and end within one of the large calls that another thread makes."""
    # Odd while a large call is open.
    phase, latencies, errors, stop = [0], [], [], threading.Event()

    def sending():
        try:
            while not stop.is_set():
                phase[0] += 1
                check(round, large())
                phase[0] += 1
        except Exception as error:
            errors.append(error)

    start, sender = time.perf_counter_ns(), threading.Thread(target=sending)
    sender.start()
    try:
        while len(latencies) < round.messages and not errors:
            before, sent = phase[0], time.perf_counter_ns()
            if sent - start > MAX_BESIDE_SECONDS * 1e9:
                raise TimeoutError('too few small calls ended within a large one')
            small()
            if before % 2 and phase[0] == before:
                latencies.append(time.perf_counter_ns() - sent)
    finally:
        stop.set()
        sender.join()
    if errors:
        raise errors[0]
    return done(start, latencies)
