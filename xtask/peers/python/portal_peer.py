"""portal: `portal.Server` and `portal.Client`, with NumPy arrays.

A server's functions always run on threads of its pool. Arrays are sent without a copy.
"""

from importlib.metadata import version

import numpy as np
import portal

import rounds

# More calls than any row has open.
MAX_IN_FLIGHT = 1024

# The server waits for 0.2 s each time that a socket is full, so 256 MiB take about 10 s, measured with portal 3.8.3. Such
# rounds would take the time of all other contenders.
MAX_RESULT_BYTES = 8 << 20

SETTINGS = (
    f'portal {version("portal")}, NumPy {np.__version__}; maxinflight and max_send_queue 1024, one worker, logging off; '
    'every function runs on the pool'
)

METHODS = {'sink': 'sink', 'dict': 'sink', 'source': 'source', 'echo': 'echo', 'pool': 'echo'}


def serve(address):
    if not address.startswith('tcp://'):
        return address
    host, port = address.removeprefix('tcp://').rsplit(':', 1)
    server = portal.Server(int(port), host=host, logging=False)
    server.bind('sink', lambda argument: None)
    server.bind('echo', lambda argument: argument)
    server.bind('source', lambda size: np.empty(size, np.uint8))
    server.start(block=False)
    return f'tcp://{host}:{server.socket.sock.getsockname()[1]}'


def connect(address):
    if not address.startswith('tcp://'):
        return SETTINGS, no_unix_sockets
    client = portal.Client(
        address.removeprefix('tcp://'), maxinflight=MAX_IN_FLIGHT, max_send_queue=MAX_IN_FLIGHT, logging=False)
    kept = {}

    def run(round):
        if round.workload not in METHODS:
            raise rounds.Unsupported(
                "a connection's messages go one after the other, so that no small call ends within a large one; "
                'its users open two connections')
        if METHODS[round.workload] != 'sink' and round.bytes > MAX_RESULT_BYTES:
            raise rounds.Unsupported(
                'its server waits for 0.2 s whenever the socket is full, so that 256 MiB take about 10 s')
        kind = (round.workload, round.bytes)
        if kind not in kept:
            kept.clear()
            kept[kind] = argument(round)
        method, data = METHODS[round.workload], kept[kind]
        return rounds.exchange(round, lambda: client.call(method, data), result_bytes)

    return SETTINGS, run


def no_unix_sockets(round):
    raise rounds.Unsupported('portal has TCP sockets only')


def argument(round):
    if round.workload == 'source':
        return round.bytes
    if round.workload == 'dict':
        part = round.bytes // rounds.DICT_ARRAYS
        return {f'array_{index:02}': np.ones(part, np.uint8) for index in range(rounds.DICT_ARRAYS)}
    return np.ones(round.bytes, np.uint8)


def result_bytes(future):
    result = future.result()
    return 0 if result is None else result.nbytes


if __name__ == '__main__':
    rounds.main(serve, connect)
