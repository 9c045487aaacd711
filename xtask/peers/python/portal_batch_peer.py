"""portal's `BatchServer`: its batcher stacks the calls of a policy, which runs once for each full batch.

Batches are always full, so the calls of a round must be a multiple of the batch size. The batcher runs in its own process,
as by default.
"""

from importlib.metadata import version

import numpy as np
import portal

import rounds

# More calls than any row has open.
MAX_IN_FLIGHT = 1024

SETTINGS = (
    f'portal {version("portal")}, NumPy {np.__version__}; maxinflight and max_send_queue 1024, one worker, the batcher in a '
    f'process of its own, batches of exactly {rounds.BATCH}, logging off'
)

IMAGES = {12_288: ((64, 64, 3), np.uint8), 602_112: ((224, 224, 3), np.float32)}


def serve(address):
    if not address.startswith('tcp://'):
        return address
    host, port = address.removeprefix('tcp://').rsplit(':', 1)
    # Its sockets cannot be asked for their port.
    port = int(port) or portal.free_port()
    # The batcher ends with this process. Its own client has no option `host`.
    portal.setup(initfns=[rounds.follow_parent], serverkw={'host': host})
    server = portal.BatchServer(port, logging=False)
    server.bind('policy', act, batch=rounds.BATCH)
    server.start(block=False)
    return f'tcp://{host}:{port}'


def act(images):
    return images.reshape(len(images), -1)[:, 0].astype(np.float32)


def connect(address):
    if not address.startswith('tcp://'):
        return SETTINGS, no_unix_sockets
    client = portal.Client(
        address.removeprefix('tcp://'), maxinflight=MAX_IN_FLIGHT, max_send_queue=MAX_IN_FLIGHT, logging=False)
    kept = {}

    def run(round):
        if round.workload != 'batched_policy':
            raise rounds.Unsupported('it takes part in the rows about batches only')
        if round.messages % rounds.BATCH or round.in_flight < rounds.BATCH:
            raise rounds.Unsupported(f'its batches always have {rounds.BATCH} calls')
        if round.bytes not in kept:
            kept.clear()
            shape, dtype = IMAGES.get(round.bytes, ((round.bytes,), np.uint8))
            kept[round.bytes] = np.ones(shape, dtype)
        image = kept[round.bytes]
        return rounds.exchange(round, lambda: client.call('policy', image), result_bytes)

    return SETTINGS, run


def no_unix_sockets(round):
    raise rounds.Unsupported('portal has TCP sockets only')


def result_bytes(future):
    return future.result().nbytes


if __name__ == '__main__':
    rounds.main(serve, connect, has_batches=True)
